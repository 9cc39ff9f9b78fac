"""Durable state of the control plane: tables, migrations and the queries over them.

Public: ``Database``, ``open_database`` and the record types. Only ``control`` imports this.
"""

from __future__ import annotations

from ridgeline_service.store.database import Database
from ridgeline_service.store.opening import open_database

__all__ = ["Database", "open_database"]
