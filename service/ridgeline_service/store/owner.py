"""A database that is not in the data directory belongs to one: two would split its endpoints.

Each control plane reconciles all rows, with the processes and files of its own directory alone. The
id lies in the directory, so that it moves with it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.store.database import Database
from ridgeline_service.store.tables import owner


def check_owner(database: Database, data_dir: DataDir) -> None:
    """Raises InvalidInput if the database is another directory's, naming that. Changes nothing in
    it, and needs no tables."""
    with database.read() as connection:
        found = _owner(connection) if inspect(connection).has_table(owner.name) else None
    _refuse_if_of_another(found, data_dir)


def claim_database(database: Database, data_dir: DataDir) -> None:
    """Make the database this directory's, if it is nobody's. Raises InvalidInput if it is
    another's, naming that."""
    own = _own_id(data_dir)
    place = f"{socket.gethostname()}:{data_dir.root}"
    try:
        with database.write() as connection:
            found = _owner(connection)
            if found is None:
                connection.execute(insert(owner).values(one=1, data_dir_id=own, place=place))
            elif found[0] == own and found[1] != place:
                connection.execute(update(owner).values(place=place))
    except IntegrityError:
        # Somebody else was faster.
        with database.read() as connection:
            found = _owner(connection)
    _refuse_if_of_another(found, data_dir)


def _refuse_if_of_another(found: tuple[str, str] | None, data_dir: DataDir) -> None:
    if found is not None and found[0] != _own_id(data_dir):
        raise InvalidInput(
            f"The database of {data_dir.root} belongs to another data directory, {found[1]}.",
            hint=f"Name a database of its own as database_url in {data_dir.settings}. If the other "
            "directory is gone for good, delete the row of the table `owner`.",
        )


def _owner(connection: Connection) -> tuple[str, str] | None:
    row = connection.execute(select(owner.c.data_dir_id, owner.c.place)).first()
    return None if row is None else (row[0], row[1])


def _own_id(data_dir: DataDir) -> str:
    """The directory's id, made by whoever asks first. It must outlive a power cut: the database
    knows the directory by it."""
    data_dir.root.mkdir(parents=True, exist_ok=True)
    opened = os.open(data_dir.identity, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(opened, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = file.read().strip()
        if not kept:
            kept = uuid.uuid4().hex
            file.write(kept + "\n")
            file.flush()
            os.fsync(file.fileno())
            _sync_folder(data_dir.root)
    return kept


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
