"""Models and endpoint configs: named requests, created, listed and deleted, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, delete, func, insert, select

from ridgeline_service.store import paging
from ridgeline_service.store.paging import Order
from ridgeline_service.store.records import StoredRequest
from ridgeline_service.store.tables import endpoint_configs, models


@dataclass(frozen=True)
class ListFilter:
    """What a List call asks for. Times are microseconds: ``after`` inclusive, ``before`` not."""

    order: Order
    limit: int
    token: str | None = None
    name_contains: str | None = None
    created_before: int | None = None
    created_after: int | None = None
    modified_before: int | None = None
    modified_after: int | None = None
    status: str | None = None


@dataclass(frozen=True)
class NamedRequests:
    """The queries over one table of named requests."""

    table: Table

    def add(self, connection: Connection, record: StoredRequest) -> None:
        """Raises sqlalchemy's IntegrityError if the name is taken."""
        connection.execute(
            insert(self.table),
            {
                "arn": record.arn,
                "name": record.name,
                "created_at": record.created_at,
                "request": dict(record.request),
            },
        )

    def get(self, connection: Connection, arn: str) -> StoredRequest | None:
        found = connection.execute(select(self.table).where(self.table.c.arn == arn)).mappings()
        row = found.first()
        return None if row is None else _record(row)

    def delete(self, connection: Connection, arn: str) -> bool:
        gone = connection.execute(delete(self.table).where(self.table.c.arn == arn))
        return gone.rowcount == 1

    def page(
        self, connection: Connection, wanted: ListFilter
    ) -> tuple[list[StoredRequest], str | None]:
        rows, token = page_rows(connection, self.table, wanted)
        return [_record(row) for row in rows], token


MODELS = NamedRequests(models)
ENDPOINT_CONFIGS = NamedRequests(endpoint_configs)


def page_rows(
    connection: Connection, table: Table, wanted: ListFilter, *conditions: ColumnElement[bool]
) -> tuple[list[RowMapping], str | None]:
    """One page of the rows of a table for which all conditions hold, and the token of the next.
    Raises InvalidInput for a bad token."""
    columns = table.c
    statement: Any = select(table).where(*conditions)
    if wanted.name_contains is not None:
        part = wanted.name_contains.lower()
        statement = statement.where(func.lower(columns.name).contains(part, autoescape=True))
    bounds: Mapping[str, tuple[int | None, int | None]] = {
        "created_at": (wanted.created_after, wanted.created_before),
        "modified_at": (wanted.modified_after, wanted.modified_before),
    }
    for name, (low, high) in bounds.items():
        if low is not None:
            statement = statement.where(columns[name] >= low)
        if high is not None:
            statement = statement.where(columns[name] < high)
    if wanted.status is not None:
        statement = statement.where(columns.status == wanted.status)
    column = columns[wanted.order.key]
    statement = paging.after(statement, wanted.order, column, columns.arn, wanted.token)
    rows = list(connection.execute(statement.limit(wanted.limit + 1)).mappings())
    shown = rows[: wanted.limit]
    if not shown:
        return [], None
    last = shown[-1]
    return shown, paging.next_token(
        rows, wanted.limit, wanted.order, last[wanted.order.key], last["arn"]
    )


def _record(row: RowMapping) -> StoredRequest:
    return StoredRequest(row["arn"], row["name"], row["created_at"], row["request"])
