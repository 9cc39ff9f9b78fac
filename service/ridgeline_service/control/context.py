"""What every verb and reconciler needs, in one value: nothing is reached through globals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from ridgeline_service.control.names import Arns, Clock, Ids, to_micros
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import Database, journal


@dataclass(frozen=True)
class Context:
    """``changed`` is called after a transaction that reconcilers or routes must hear of."""

    db: Database
    settings: Settings
    data_dir: DataDir
    clock: Clock
    ids: Ids
    changed: Callable[[], None]

    @property
    def arns(self) -> Arns:
        return Arns(self.settings.region, self.settings.account_id)

    def now(self) -> int:
        """Microseconds since the epoch."""
        return to_micros(self.clock())

    def event(
        self,
        connection: Connection,
        resource: str,
        change: str,
        reason: str = "",
        message: str = "",
    ) -> None:
        journal.add_event(connection, self.now(), resource, change, reason, message)
