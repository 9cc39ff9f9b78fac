"""What models and endpoint configs share: a name, its uniqueness, SageMaker's words about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.errors import ValidationException
from ridgeline_service.store import journal
from ridgeline_service.store.records import StoredRequest
from ridgeline_service.store.resources import NamedRequests


class NamedVerbs:
    """Create, get and delete over one table. ``words`` is what SageMaker calls the kind."""

    def __init__(self, context: Context, rows: NamedRequests, *, kind: str, words: str) -> None:
        self._context = context
        self._rows = rows
        self._kind = kind
        self._words = words

    def create(self, name: str, request: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Keep the request under its name; returns the ARN. One transaction."""
        arn = self._context.arns.of(self._kind, name)
        kept = {key: value for key, value in request.items() if key != "Tags"}
        record = StoredRequest(arn, name, self._context.now(), kept)
        try:
            with self._context.db.write() as connection:
                self._rows.add(connection, record)
                journal.put_tags(connection, arn, tags)
                self._context.event(connection, arn, "Created")
        except IntegrityError as error:
            raise already_exists(self._words, arn) from error
        return arn

    def get(self, name: str) -> StoredRequest:
        with self._context.db.read() as connection:
            return self.find(connection, name)

    def find(self, connection: Connection, name: str) -> StoredRequest:
        arn = self._context.arns.of(self._kind, name)
        record = self._rows.get(connection, arn)
        if record is None:
            raise could_not_find(self._words, arn)
        return record

    def delete(self, name: str) -> None:
        arn = self._context.arns.of(self._kind, name)
        with self._context.db.write() as connection:
            if not self._rows.delete(connection, arn):
                raise could_not_find(self._words, arn)
            journal.remove_all_tags(connection, arn)
            self._context.event(connection, arn, "Deleted")


def could_not_find(words: str, arn: str) -> ValidationException:
    return ValidationException(f'Could not find {words} "{arn}".')


def already_exists(words: str, arn: str) -> ValidationException:
    return ValidationException(f'Cannot create already existing {words} "{arn}".')
