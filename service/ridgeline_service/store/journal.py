"""Tags, keys, events and counters: the small tables beside the resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, func, insert, select, text, update

from ridgeline_service.store.records import EventRecord, KeyRecord
from ridgeline_service.store.tables import counters, events, keys, tags


def put_tags(connection: Connection, arn: str, values: Mapping[str, str]) -> dict[str, str]:
    """Add tags; a key that is there gets the new value. Returns all that there are then, which no
    other transaction adds to until this one ends."""
    if values:
        remove_tags(connection, arn, list(values))
        rows = [{"arn": arn, "key": key, "value": value} for key, value in values.items()]
        connection.execute(insert(tags), rows)
    return tags_of(connection, arn)


def remove_tags(connection: Connection, arn: str, names: Sequence[str]) -> None:
    lock_tags(connection, arn)
    connection.execute(delete(tags).where(tags.c.arn == arn, tags.c.key.in_(names)))


def remove_all_tags(connection: Connection, arn: str) -> None:
    """For a resource that is deleted: after its row, as in ``lock_tags``."""
    lock_tags(connection, arn)
    connection.execute(delete(tags).where(tags.c.arn == arn))


def tags_of(connection: Connection, arn: str) -> dict[str, str]:
    """Sorted by key."""
    statement = select(tags.c.key, tags.c.value).where(tags.c.arn == arn).order_by(tags.c.key)
    return {row.key: row.value for row in connection.execute(statement)}


def lock_tags(connection: Connection, arn: str) -> None:
    """Until the transaction ends, no other changes these tags. A resource that is found after this
    keeps them: its deletion has still to take them away. Who locks its row too does that first.

    PostgreSQL cannot lock rows that are not there yet; SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:arn, 0))"), {"arn": arn}
        )


def add_key(connection: Connection, record: KeyRecord) -> None:
    connection.execute(insert(keys), dict(record.__dict__))


def all_keys(connection: Connection) -> list[KeyRecord]:
    """Oldest first."""
    statement = select(keys).order_by(keys.c.created_at, keys.c.key_id)
    return [KeyRecord(**row) for row in connection.execute(statement).mappings()]


def delete_key(connection: Connection, key_id: str) -> bool:
    return connection.execute(delete(keys).where(keys.c.key_id == key_id)).rowcount == 1


def add_event(
    connection: Connection, at: int, resource: str, change: str, reason: str = "", message: str = ""
) -> None:
    connection.execute(
        insert(events),
        {
            "at": at,
            "resource": resource,
            "change": change,
            "reason": reason,
            "message": message,
        },
    )


def latest_events(
    connection: Connection, *, resource: str | None = None, limit: int = 100
) -> list[EventRecord]:
    """Newest first. ``resource`` is an ARN, or a part of one."""
    statement = select(events).order_by(events.c.id.desc()).limit(limit)
    if resource is not None:
        part = resource.lower()
        statement = statement.where(func.lower(events.c.resource).contains(part, autoescape=True))
    return [EventRecord(**row) for row in connection.execute(statement).mappings()]


def prune_events(connection: Connection, keep: int) -> None:
    """Drop all but about the newest ``keep``."""
    newest = connection.execute(select(func.max(events.c.id))).scalar_one_or_none()
    if newest is not None:
        connection.execute(delete(events).where(events.c.id <= newest - keep))


def increase(connection: Connection, counter: str) -> int:
    """The counter's next value. Its row stays locked until the transaction ends, so this is also
    how control planes on PostgreSQL take turns."""
    connection.execute(
        update(counters).where(counters.c.name == counter).values(value=counters.c.value + 1)
    )
    return int(
        connection.execute(select(counters.c.value).where(counters.c.name == counter)).scalar_one()
    )


def raise_to(connection: Connection, counter: str, value: int) -> None:
    """Let the counter go on behind ``value``, if it is not there yet."""
    connection.execute(
        update(counters)
        .where(counters.c.name == counter, counters.c.value < value)
        .values(value=value)
    )
