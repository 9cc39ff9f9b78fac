"""What the verbs of both kinds share: Create, Describe, List, Stop, Delete over one table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.control.listing import bad_token_refused, list_filter, tags_in, with_token
from ridgeline_service.errors import ResourceInUse, ResourceNotFound, ValidationException
from ridgeline_service.store import command_jobs as rows
from ridgeline_service.store import journal
from ridgeline_service.store.command_jobs import CommandJob, CommandKind
from ridgeline_service.store.states import Desired


class CommandJobVerbs(ABC):
    """The verbs of one kind. ``waiting`` is its first status; ``member``, ``arn`` and ``entries``
    are the names of its request's name, its answer's ARN and its list."""

    kind: ClassVar[CommandKind]
    waiting: ClassVar[str]
    member: ClassVar[str]
    arn: ClassVar[str]
    entries: ClassVar[str]

    def __init__(self, context: Context) -> None:
        self._context = context

    @abstractmethod
    def check(self, request: Mapping[str, Any]) -> None:
        """Raises ValidationException for what can never be."""

    @abstractmethod
    def shown(self, job: CommandJob) -> dict[str, Any]:
        """The answer of Describe."""

    @abstractmethod
    def summary(self, job: CommandJob) -> dict[str, Any]:
        """An entry of List."""

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context, tags, name = self._context, tags_in(request), request[self.member]
        self.check(request)
        arn, now = context.arns.of(self.kind, name), context.now()
        job = CommandJob(
            arn=arn,
            name=name,
            kind=self.kind,
            id=context.ids(),
            created_at=now,
            modified_at=now,
            status=self.waiting,
            failure_reason="",
            desired=Desired.RUNNING,
            request={key: value for key, value in request.items() if key != "Tags"},
        )
        try:
            with context.db.write() as connection:
                rows.add_command_job(connection, job)
                journal.put_tags(connection, arn, tags)
                context.event(connection, arn, "Created")
        except IntegrityError as error:
            raise ResourceInUse(
                f"{self.kind.words.capitalize()} with name {name} already exists ({arn})."
            ) from error
        context.changed()
        return {self.arn: arn}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            return self.shown(self.find(connection, request))

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with bad_token_refused(), self._context.db.read() as connection:
            jobs, token = rows.page_command_jobs(connection, self.kind, list_filter(request))
        return with_token({self.entries: [self.summary(job) for job in jobs]}, token)

    def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context = self._context
        with context.db.write() as connection:
            job = self.find(connection, request, for_update=True)
            if job.ended:
                raise ValidationException(
                    f"The request was rejected because the {self.kind.words} is in status "
                    f"{job.status}."
                )
            rows.change_command_job(
                connection,
                job.arn,
                status="STOPPING",
                desired=Desired.STOPPED,
                modified_at=context.now(),
            )
            context.event(connection, job.arn, "STOPPING", "Requested")
        context.changed()
        return {}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What it made stays."""
        context = self._context
        with context.db.write() as connection:
            job = self.find(connection, request, for_update=True)
            if not job.ended:
                raise ResourceInUse(
                    f"{self.kind.words.capitalize()} {job.name!r} is {job.status}.",
                    hint="Stop it first.",
                )
            rows.delete_command_job(connection, job.arn)
            journal.remove_all_tags(connection, job.arn)
            context.event(connection, job.arn, "Deleted")
        return {}

    def find(
        self, connection: Connection, request: Mapping[str, Any], *, for_update: bool = False
    ) -> CommandJob:
        """The job that a request names. Raises ResourceNotFound."""
        name = request[self.member]
        arn = self._context.arns.of(self.kind, name)
        job = rows.get_command_job(connection, arn, for_update=for_update)
        if job is None:
            raise ResourceNotFound(f"Could not find {self.kind.words} with name: {name}.")
        return job
