"""One database, SQLite or PostgreSQL: connections, transactions, migrations.

Knows no table but Alembic's own. SQLite admits one writer at a time and makes the others sleep and
retry, which gives the slowest of eight writers a hundred times the median; so writers of this
process queue on a lock instead, and the busy timeout is left for other processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from ridgeline.errors import InvalidInput, Unsupported
from ridgeline_service.store.fairlock import FairLock

SCHEMA_HEAD = "0011"
BUSY_TIMEOUT_MS = 15_000

_MIGRATIONS = Path(__file__).parent / "migrations"
_WRITE = {"ridgeline_write": True}


class Database:
    """Transactions over one engine. Thread-safe; ``close`` it at the end."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._writer = FairLock()
        self._readers = engine
        if not self.is_sqlite:  # which by default gives each statement a view of its own
            self._readers = engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view, never blocked by writers. Nothing may be written in it."""
        with self._readers.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by an exception."""
        if not self.is_sqlite:
            with self.engine.begin() as connection:
                yield connection
            return
        with self._writer, self.engine.connect() as connection:
            connection = connection.execution_options(**_WRITE)
            with connection.begin():
                yield connection

    def migrate(self) -> None:
        """Bring the schema to this version. Two control planes may do so at once.

        Raises InvalidInput for a schema of a newer version.
        """
        version = self._version()
        if version == SCHEMA_HEAD:
            return
        if version is not None and version > SCHEMA_HEAD:
            raise InvalidInput(
                f"The database {self.engine.url.render_as_string()} was used by a newer Ridgeline: "
                f"its schema is {version}, and this version knows {SCHEMA_HEAD}.",
                hint="Install that version again, or restore a copy of the database from before.",
            )
        # Alembic costs 0.2 s to import: only a start that has something to migrate pays for it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self.write() as connection, self._unbounded(connection):
            if not self.is_sqlite:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(726964676)")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        self.engine.dispose()

    def _unbounded(self, connection: Connection) -> AbstractContextManager[None]:
        if self.is_sqlite:
            return nullcontext()
        from ridgeline_service.store.postgres import unbounded  # its driver may be absent

        return unbounded(connection)

    def _version(self) -> str | None:
        try:
            with self.read() as connection:
                row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
        except (OperationalError, ProgrammingError):
            return None  # a new database has no such table
        return None if row is None else str(row[0])


def connect(url: str) -> Database:
    """A database by its URL, not migrated. ``postgresql://`` means the psycopg 3 driver.

    Raises Unsupported if the driver is not installed, InvalidInput for what is no URL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput(
            "database_url is no URL of a database.",
            hint="Write postgresql://USER:PASSWORD@HOST/DATABASE, with %-escapes in the password.",
        ) from None
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        try:
            from ridgeline_service.store.postgres import bound

            engine = create_engine(parsed, pool_size=8, max_overflow=24, pool_pre_ping=True)
        except ImportError as error:
            raise Unsupported(
                f"The database {parsed.render_as_string()} needs a driver: {error}.",
                hint="pip install 'ridgeline[postgres]'",
            ) from error
        bound(engine)
        return Database(engine)
    engine = create_engine(parsed, pool_size=8, max_overflow=56)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling would begin late and as a reader; see _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer that begins as a reader fails, without waiting, when another one was faster.
    writes = connection.get_execution_options().get("ridgeline_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
