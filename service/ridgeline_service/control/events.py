"""The journal of changes, newest first."""

from __future__ import annotations

from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.names import to_datetime
from ridgeline_service.store import journal


class Events:
    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self, resource: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """``resource`` is an ARN or a part of one, such as an endpoint's name."""
        with self._context.db.read() as connection:
            found = journal.latest_events(connection, resource=resource, limit=limit)
        return [
            {
                "id": event.id,
                "at": to_datetime(event.at),
                "resource": event.resource,
                "change": event.change,
                "reason": event.reason,
                "message": event.message,
            }
            for event in found
        ]
