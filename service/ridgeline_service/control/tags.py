"""Tags of any resource: AddTags, ListTags, DeleteTags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.configs import CONFIG_WORDS
from ridgeline_service.control.listing import tags_in
from ridgeline_service.control.named import could_not_find
from ridgeline_service.control.names import ENDPOINT, ENDPOINT_CONFIG, MODEL, TUNING_JOB
from ridgeline_service.errors import ValidationException
from ridgeline_service.store import command_jobs, endpoints, journal, tuning_jobs
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store.command_jobs import CommandKind
from ridgeline_service.store.job_records import JobKind
from ridgeline_service.store.resources import ENDPOINT_CONFIGS, MODELS

MAX_TAGS = 50
_JOBS = frozenset(JobKind)
_COMMANDS = frozenset(CommandKind)


class Tags:
    """The tag verbs of the SageMaker API."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def add(self, request: Mapping[str, Any]) -> dict[str, Any]:
        arn, new = request["ResourceArn"], tags_in(request)
        with self._context.db.write() as connection:
            arn = self._existing(connection, arn, lock_tags=True)
            kept = journal.put_tags(connection, arn, new)
            if len(kept) > MAX_TAGS:
                raise ValidationException(
                    f"{arn} would have {len(kept)} tags; a resource has at most {MAX_TAGS}."
                )
        return {"Tags": _shape(kept)}

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """All on one page: a resource never has more than one page of tags."""
        with self._context.db.read() as connection:
            arn = self._existing(connection, request["ResourceArn"])
            return {"Tags": _shape(journal.tags_of(connection, arn))}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.write() as connection:
            arn = self._existing(connection, request["ResourceArn"])
            journal.remove_tags(connection, arn, request["TagKeys"])
        return {}

    def _existing(self, connection: Connection, arn: str, *, lock_tags: bool = False) -> str:
        """The ARN as it is stored. Raises ValidationException if nothing has it."""
        arns = self._context.arns
        prefix = arns.of("", "").removesuffix("/")
        kind, _, name = arn.removeprefix(prefix).partition("/")
        if not arn.startswith(prefix) or not name:
            raise ValidationException(
                f"Invalid ARN {arn!r}.",
                hint=f"Resources here are {prefix}model/NAME, endpoint-config/NAME, endpoint/NAME, "
                "training-job/NAME, processing-job/NAME, transform-job/NAME, "
                f"{TUNING_JOB}/NAME, {', '.join(f'{one}/NAME' for one in CommandKind)}.",
            )
        stored = arns.of(kind, name)
        if lock_tags:
            journal.lock_tags(connection, stored)
        if kind == MODEL:
            found, words = MODELS.get(connection, stored) is not None, "model"
        elif kind == ENDPOINT_CONFIG:
            found, words = ENDPOINT_CONFIGS.get(connection, stored) is not None, CONFIG_WORDS
        elif kind == ENDPOINT:
            found, words = endpoints.get_endpoint(connection, stored) is not None, "endpoint"
        elif kind in _JOBS:
            found, words = job_rows.get_job(connection, stored) is not None, JobKind(kind).words
        elif kind in _COMMANDS:
            found = command_jobs.get_command_job(connection, stored) is not None
            words = CommandKind(kind).words
        elif kind == TUNING_JOB:
            found = tuning_jobs.get_tuning(connection, stored) is not None
            words = "hyperparameter tuning job"
        else:
            raise ValidationException(f"Resources of the kind {kind!r} have no tags here.")
        if not found:
            raise could_not_find(words, stored)
        return stored


def _shape(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
