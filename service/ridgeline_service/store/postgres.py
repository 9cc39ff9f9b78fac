"""Connections to PostgreSQL that give up on a silent server, and refuse what is not UTF8.

A network, or something between us and the server, can swallow what is sent on an open connection
and acknowledge it all the same. No setting of TCP notices that: only how long an answer takes does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Connection, Engine, event

from ridgeline.errors import InvalidInput

T = TypeVar("T")

CONNECT_S = 10
# A statement of ours takes milliseconds, also where it waits for a row.
ANSWER_S = 20.0
# After we have given up, the server does: what waits there keeps one of its connections.
STATEMENT_S = 25.0
IDLE_TRANSACTION_S = 30.0

# How long a server goes on for a connection that only we gave up: its locks would hold up all
# others. An owner's own value stays, and it is no startup parameter, as PgBouncer refuses those.
_LIMIT = "SELECT set_config(%(name)s, %(ms)s, false) WHERE current_setting(%(name)s) = '0'"


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself where an answer takes longer than ``answer_s``; None is for ever."""

    answer_s: float | None = None

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    heard_at = now
                elif self.answer_s is not None and now - heard_at > self.answer_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer for {self.answer_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


def bound(engine: Engine) -> None:
    """Let the engine make such connections, whose values the database's URL goes before."""

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, args: Any, parameters: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(*args, **{"connect_timeout": CONNECT_S} | parameters)
        connection.answer_s = ANSWER_S
        try:
            _refuse_other_encoding(connection)
            connection.autocommit = True
            _limit(connection, "statement_timeout", STATEMENT_S)
            _limit(connection, "idle_in_transaction_session_timeout", IDLE_TRANSACTION_S)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def unbounded(connection: Connection) -> Iterator[None]:
    """For statements that may take long, or wait long for another control plane; then no limit
    on the server is left until their transaction ends."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    driver.answer_s = None
    try:
        yield
    finally:
        driver.answer_s = ANSWER_S


def _limit(connection: BoundedConnection, name: str, seconds: float) -> None:
    connection.execute(_LIMIT, {"name": name, "ms": f"{seconds * 1000:.0f}"})


def _refuse_other_encoding(connection: BoundedConnection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise InvalidInput(
            f"The database {connection.info.dbname} must be UTF8, and is {encoding}.",
            hint="Name another one as database_url, made by: CREATE DATABASE NAME ENCODING 'UTF8' "
            "TEMPLATE template0",
        )
