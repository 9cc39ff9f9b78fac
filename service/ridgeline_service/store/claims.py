"""Claims: by which one control plane at a time works on a row.

A claim is a token with an expiry. Its holder does slow work outside any transaction and writes
back only while the row still has its token: so a holder that slept through its expiry cannot undo
what the next one did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Table, or_, select, update


@dataclass(frozen=True)
class Claims:
    """The claims on one table's rows, which have ``lock_token`` and ``lock_expires_at``; ``key``
    is its primary key."""

    table: Table
    key: Column[Any]

    def take(
        self,
        connection: Connection,
        key: str,
        token: str,
        *,
        now: int,
        expires_at: int,
        holder_is_dead: Callable[[str], bool],
    ) -> bool:
        """Take or renew a claim. One whose holder is known to be dead need not expire first."""
        columns = self.table.c
        held = connection.execute(select(columns.lock_token).where(self.key == key))
        holder = held.scalar_one_or_none()
        free = [columns.lock_token.is_(None), columns.lock_token == token]
        if holder is not None and holder != token and holder_is_dead(holder):
            free.append(columns.lock_token == holder)
        taken = connection.execute(
            update(self.table)
            .where(self.key == key, or_(*free, columns.lock_expires_at < now))
            .values(lock_token=token, lock_expires_at=expires_at)
        )
        return taken.rowcount == 1

    def renew(self, connection: Connection, token: str, expires_at: int, *, now: int) -> None:
        """The heartbeat of a control plane: every claim of its token that has not expired lives
        on."""
        columns = self.table.c
        connection.execute(
            update(self.table)
            .where(columns.lock_token == token, columns.lock_expires_at >= now)
            .values(lock_expires_at=expires_at)
        )

    def release(self, connection: Connection, token: str) -> None:
        connection.execute(
            update(self.table).where(self.table.c.lock_token == token).values(lock_token=None)
        )
