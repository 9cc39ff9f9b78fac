"""PostgreSQL as it is found in the world: behind a network that goes silent, made with another
encoding or collation, with settings of its owner's."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import journal, open_database, postgres
from ridgeline_service.store.database import connect
from ridgeline_service.store.outage import outage
from ridgeline_service.store.paging import Order
from ridgeline_service.store.records import StoredRequest
from ridgeline_service.store.resources import MODELS, ListFilter


class Swallowing:
    """A proxy before a server. What lies between the two when it goes silent is acknowledged and
    passed on no more; connections made later work."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._woken, self._wake = socket.socketpair()
        self._silent: set[socket.socket] = set()
        self._peers: dict[socket.socket, socket.socket] = {}
        for each in (self._listening, self._woken):
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def go_silent(self) -> None:
        self._silent |= set(self._peers)

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        for each in (self._listening, self._woken, *self._peers):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                source = key.fileobj
                if source is self._woken:
                    return
                if source is self._listening:
                    self._accept()
                else:
                    self._pass_on(source)

    def _accept(self) -> None:
        near, _ = self._listening.accept()
        far = socket.create_connection(self._server)
        self._peers |= {near: far, far: near}
        for each in (near, far):
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            found = source.recv(65536)
        except ConnectionError:
            found = b""
        if not found:
            self._selector.unregister(source)
        if source not in self._silent:
            target = self._peers[source]
            with suppress(OSError):  # both sides may end at once
                target.sendall(found) if found else target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxied(postgresql: str) -> Iterator[tuple[Swallowing, str]]:
    url = make_url(postgresql)
    proxy = Swallowing((url.host or "", url.port or 5432))
    yield proxy, str(url.set(host="127.0.0.1", port=proxy.port))
    proxy.close()


def finished(work: Callable[[], None]) -> bool:
    """Whether it ends at all."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_connections_that_go_silent_are_given_up_for_new_ones(proxied, monkeypatch):
    proxy, url = proxied
    # The server is rid of a silent transaction, and its locks, before we are.
    monkeypatch.setattr(postgres, "ANSWER_S", 1.0)
    url += "?options=-c%20idle_in_transaction_session_timeout%3D300"
    failed: list[OperationalError] = []
    counted: list[int] = []

    def count(go_silent: bool) -> None:
        try:
            with db.write() as connection:
                journal.increase(connection, "snapshot")
                if go_silent:
                    proxy.go_silent()
                counted.append(journal.increase(connection, "snapshot"))
        except OperationalError as error:
            failed.append(error)

    def go_on() -> None:
        db.migrate()
        count(go_silent=True)
        count(go_silent=False)
        proxy.go_silent()
        count(go_silent=False)

    with closing(connect(url)) as db:
        assert finished(go_on)
    assert counted == [2, 4]
    (error,) = failed
    told = outage(error)
    assert told is not None
    assert "no answer for 1 s" in told.message


def test_a_statement_that_was_given_up_ends_on_the_server_too(postgresql, monkeypatch):
    """Each would keep a connection, of the few that a server has, as long as its lock is held."""
    monkeypatch.setattr(postgres, "ANSWER_S", 0.5)
    monkeypatch.setattr(postgres, "STATEMENT_S", 1.0)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with (
        closing(connect(postgresql)) as db,
        psycopg.connect(postgresql) as holder,
        psycopg.connect(postgresql, autocommit=True) as other,
    ):
        db.migrate()
        holder.execute("LOCK TABLE counters")
        with pytest.raises(OperationalError, match=r"no answer for 0\.5 s"), db.write() as blocked:
            journal.increase(blocked, "snapshot")

        def end() -> None:
            while other.execute(waiting).fetchone() != (0,):
                pass

        assert finished(end)


@pytest.mark.parametrize(
    ("limit", "ours"),
    [("idle_in_transaction_session_timeout", "30s"), ("statement_timeout", "25s")],
)
def test_the_servers_limits_are_ours_unless_the_owner_has_set_some(postgresql, limit, ours):
    own = f"{postgresql}?options=-c%20{limit}%3D7s"
    for url, wanted in ((postgresql, ours), (own, "7s")):
        with closing(connect(url)) as db, db.read() as connection:
            assert connection.exec_driver_sql(f"SHOW {limit}").scalar_one() == wanted


def test_a_migration_takes_as_long_as_it_needs(postgresql, monkeypatch):
    monkeypatch.setattr(postgres, "STATEMENT_S", 0.2)
    with closing(connect(postgresql)) as db:
        with db.write() as connection, postgres.unbounded(connection):
            connection.exec_driver_sql("SELECT pg_sleep(0.4)")
        with pytest.raises(OperationalError), db.write() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(0.4)")


def test_a_statement_that_the_owners_limit_ended_is_an_outage(postgresql):
    with (
        closing(connect(f"{postgresql}?options=-c%20statement_timeout%3D1")) as db,
        pytest.raises(OperationalError) as ended,
        db.read() as connection,
    ):
        connection.exec_driver_sql("SELECT pg_sleep(10)")
    assert outage(ended.value) is not None


def test_a_transaction_that_the_server_ended_is_an_outage(postgresql):
    with closing(connect(postgresql)) as db, db.read() as other:

        def outlive() -> None:
            with db.write() as connection:
                pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 1")
                lives = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
                while other.exec_driver_sql(lives).scalar_one():
                    other.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(DBAPIError) as ended:
            outlive()
        assert outage(ended.value) is not None


def test_a_deadlock_is_told_as_one_and_as_worth_another_try(postgresql):
    with closing(connect(postgresql)) as db:
        db.migrate()
        together, raised = threading.Barrier(2), []

        def increase(*counters: str) -> None:
            try:
                with db.write() as connection:
                    for counter in counters:
                        journal.increase(connection, counter)
                        if counter == counters[0]:
                            together.wait(10)
            except OperationalError as error:
                raised.append(error)

        with db.read() as connection:
            names = connection.exec_driver_sql("SELECT name FROM counters").scalars().all()[:2]
        threads = [threading.Thread(target=increase, args=each) for each in (names, names[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (error,) = raised
    told = outage(error)
    assert told is not None
    assert told.message.startswith("Another change of the same rows was in the way")
    assert told.hint == "Try again."


@contextmanager
def database(server_url: str, made: str) -> Iterator[str]:
    """The URL of another database, as ``made`` says."""
    url = make_url(server_url)
    name = f"{url.database}_other"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {made}")
        try:
            yield str(url.set(database=name))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_all_text_is_refused(postgresql, tmp_path, encoding):
    with (
        database(postgresql, f"ENCODING '{encoding}' LOCALE 'C'") as url,
        pytest.raises(InvalidInput, match=f"must be UTF8, and is {encoding}") as refused,
    ):
        open_database(Settings(database_url=url), DataDir(tmp_path))
    assert "ENCODING 'UTF8'" in refused.value.hint


@pytest.mark.parametrize("descending", [False, True])
def test_names_have_one_order_in_any_collation(postgresql, tmp_path, descending):
    """As on SQLite: capitals first."""
    names = ["B", "Zoo", "a", "a-b", "aa", "b"]
    with (
        database(postgresql, "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'") as url,
        closing(open_database(Settings(database_url=url), DataDir(tmp_path))) as db,
    ):
        with db.write() as connection:
            for name in names:
                MODELS.add(connection, StoredRequest(f"arn:model/{name}", name, 1, {}))
        found, token = [], None
        while len(found) <= len(names):
            with db.read() as connection:
                asked = ListFilter(Order("name", descending), limit=2, token=token)
                rows, token = MODELS.page(connection, asked)
            found += [row.name for row in rows]
            if token is None:
                break
    assert found == sorted(names, reverse=descending)
