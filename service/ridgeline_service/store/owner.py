"""A database that is not in the data directory belongs to one: two would split its endpoints.

Each control plane reconciles all rows, with the processes and files of its own directory alone. The
id lies in the directory, so that it moves with it.
"""

from __future__ import annotations

import socket
import uuid

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from ridgeline.errors import InvalidInput
from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir
from ridgeline_service.store.database import Database
from ridgeline_service.store.tables import owner


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
    if found is not None and found[0] != own:
        raise InvalidInput(
            f"The database of {data_dir.root} belongs to another data directory, {found[1]}.",
            hint=f"Name a database of its own as database_url in {data_dir.settings}. If the other "
            "directory is gone for good, delete the row of the table `owner`.",
        )


def _owner(connection: Connection) -> tuple[str, str] | None:
    row = connection.execute(select(owner.c.data_dir_id, owner.c.place)).first()
    return None if row is None else (row[0], row[1])


def _own_id(data_dir: DataDir) -> str:
    try:
        kept = data_dir.identity.read_text().strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return kept
    made = uuid.uuid4().hex
    write_atomic(data_dir.identity, made + "\n", mode=0o600, durable=True)
    return made
