"""Transactions, migrations, claims: on SQLite, and on PostgreSQL where a URL is given.

RIDGELINE_TEST_POSTGRES names a server on which the tests may make databases.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError

import ridgeline_service.store.database as database_module
from ridgeline.errors import InvalidInput, Unavailable, Unsupported
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import endpoints, journal, open_database, replicas
from ridgeline_service.store.database import connect
from ridgeline_service.store.fairlock import FairLock
from ridgeline_service.store.records import (
    ContainerSpec,
    DeploymentRecord,
    EndpointRecord,
    ReplicaRecord,
    Stage,
    StoredRequest,
    VariantSpec,
)
from ridgeline_service.store.resources import MODELS
from ridgeline_service.store.states import Desired, EndpointStatus, Reason, ReplicaStatus
from ridgeline_service.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return "" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def db(url, tmp_path):
    found = open_database(Settings(database_url=url), DataDir(tmp_path))
    yield found
    found.close()


def model(name: str) -> StoredRequest:
    return StoredRequest(f"arn:model/{name}", name, 1, {"ModelName": name, "deep": {"a": [1]}})


def test_the_migrations_make_exactly_the_tables(db):
    with db.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert found == []


def test_the_head_that_is_checked_at_start_is_the_last_migration():
    scripts = ScriptDirectory(str(Path(database_module.__file__).parent / "migrations"))
    assert scripts.get_current_head() == database_module.SCHEMA_HEAD


def test_opening_again_keeps_what_is_there(db, url, tmp_path):
    with db.write() as connection:
        MODELS.add(connection, model("kept"))
    again = open_database(Settings(database_url=url), DataDir(tmp_path))
    with again.read() as connection:
        assert MODELS.get(connection, "arn:model/kept") == model("kept")
    again.close()


def test_a_migration_keeps_the_deployments_of_endpoints(url, tmp_path):
    """SQLite makes a table anew for some changes, and what refers to the old one goes with it."""
    old = connect(url or f"sqlite:///{tmp_path / 'old.db'}")
    config = Config()
    config.set_main_option(
        "script_location", str(Path(database_module.__file__).parent / "migrations")
    )
    with old.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.exec_driver_sql(
            "INSERT INTO endpoints (arn, name, created_at, modified_at, status, reason, "
            "failure_reason, desired, active_deployment) "
            "VALUES ('arn:e', 'e', 1, 1, 'InService', '', '', 'running', 'd')"
        )
        connection.exec_driver_sql(
            "INSERT INTO deployments (id, endpoint_arn, created_at, config_name, config, variants, "
            "task) VALUES ('d', 'arn:e', 1, 'c', '{}', '[]', '')"
        )
    old.migrate()
    with old.read() as connection:
        [endpoint] = endpoints.all_endpoints(connection)
        assert (endpoint.traffic_step, endpoint.traffic_at) == (0, 0)
        assert endpoints.get_deployment(connection, "d") is not None
    old.close()


def test_an_exception_leaves_nothing_of_its_transaction(db):
    def half() -> None:
        with db.write() as connection:
            MODELS.add(connection, model("half"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with db.read() as connection:
        assert MODELS.get(connection, "arn:model/half") is None


def test_a_name_is_taken_once(db):
    with db.write() as connection:
        MODELS.add(connection, model("m"))
    with pytest.raises(IntegrityError), db.write() as connection:
        MODELS.add(connection, model("m"))


def test_writers_at_once_lose_nothing(db):
    def write(first: int) -> None:
        for index in range(20):
            with db.write() as connection:
                MODELS.add(connection, model(f"m-{first}-{index}"))
                journal.increase(connection, "snapshot")

    threads = [threading.Thread(target=write, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.write() as connection:
        assert journal.increase(connection, "snapshot") == 161


def test_a_reader_sees_one_moment_and_is_not_held_up_by_a_writer(db):
    with db.write() as writing:
        MODELS.add(writing, model("m"))
        with db.read() as reading:
            assert MODELS.get(reading, "arn:model/m") is None
    with db.read() as reading:
        assert MODELS.get(reading, "arn:model/m") is not None


def test_all_of_one_read_is_of_one_moment(db):
    with db.read() as reading:
        assert journal.all_keys(reading) == []
        with db.write() as writing:
            MODELS.add(writing, model("m"))
        assert MODELS.get(reading, "arn:model/m") is None


def test_counters_never_go_back(db):
    with db.write() as connection:
        journal.raise_to(connection, "snapshot", 41)
        journal.raise_to(connection, "snapshot", 7)
        assert journal.increase(connection, "snapshot") == 42


def test_events_are_pruned_to_the_newest(db):
    with db.write() as connection:
        for index in range(10):
            journal.add_event(connection, index, f"arn:{index}", "Created")
        journal.prune_events(connection, keep=3)
        assert [e.resource for e in journal.latest_events(connection)] == [
            "arn:9",
            "arn:8",
            "arn:7",
        ]


def test_an_unusable_database_is_named(tmp_path):
    with pytest.raises(Unavailable) as caught:
        open_database(
            Settings(database_url="postgresql://u:secret@127.0.0.1:1/none"), DataDir(tmp_path)
        )
    assert "127.0.0.1:1/none" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_database_of_a_newer_version_is_refused_with_the_next_step(db, url, tmp_path):
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9912'")
    with pytest.raises(InvalidInput) as refused:
        open_database(Settings(database_url=url), DataDir(tmp_path))
    said = f"its schema is 9912, and this version knows {database_module.SCHEMA_HEAD}"
    assert said in refused.value.message
    assert "Install that version again" in refused.value.hint


def test_a_missing_driver_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unsupported) as caught:
        connect("postgresql://u:secret@127.0.0.1:1/none")
    assert "ridgeline[postgres]" in caught.value.hint
    assert "secret" not in str(caught.value)


VARIANT = VariantSpec(
    name="A",
    model_name="m",
    weight=1.0,
    count=1,
    deployed_count=1,
    instance_type="ml.m5.large",
    memory_bytes=1,
    memory_limit_bytes=1,
    startup_timeout_s=60.0,
    download_timeout_s=60.0,
    container=ContainerSpec(image="i", runtime="llm", environment={"A": "b"}),
)


def with_replica(db) -> ReplicaRecord:
    endpoint = EndpointRecord(
        arn="arn:e",
        name="e",
        created_at=1,
        modified_at=1,
        status=EndpointStatus.CREATING,
        reason=Reason.REQUESTED,
        failure_reason="",
        desired=Desired.RUNNING,
        active_deployment=None,
        pending_deployment="d",
        deployment_config=None,
    )
    replica = ReplicaRecord(
        id="r",
        endpoint_arn="arn:e",
        deployment_id="d",
        variant="A",
        status=ReplicaStatus.PENDING,
        reason=Reason.NONE,
        message="",
        desired=Desired.RUNNING,
        created_at=1,
        changed_at=1,
        launched_at=None,
        ready_at=None,
        memory_bytes=5,
        port=None,
        token="t",
        pid=None,
        start_time=None,
        task="",
        stages=(Stage("download", "done", 0.5, 3, 4),),
    )
    with db.write() as connection:
        endpoints.add_endpoint(connection, endpoint)
        endpoints.add_deployment(
            connection, DeploymentRecord("d", "arn:e", 1, "c", {"x": 1}, (VARIANT,))
        )
        replicas.add_replica(connection, replica)
        assert endpoints.get_endpoint(connection, "arn:e") == endpoint
        assert replicas.get_replica(connection, "r") == replica
        deployment = endpoints.get_deployment(connection, "d")
        assert deployment is not None
        assert deployment.variants == (VARIANT,)
    return replica


def claim(db, token: str, now: int, dead: tuple[str, ...] = ()) -> bool:
    with db.write() as connection:
        return replicas.CLAIMS.take(
            connection, "r", token, now=now, expires_at=now + 10, holder_is_dead=dead.__contains__
        )


def test_a_claim_keeps_others_away_until_it_expires(db):
    with_replica(db)
    assert claim(db, "one", now=100)
    assert not claim(db, "two", now=105)
    assert claim(db, "one", now=105), "its holder may renew it"
    assert not claim(db, "two", now=115)
    assert claim(db, "two", now=116)


def test_the_claim_of_a_dead_holder_is_free_at_once(db):
    with_replica(db)
    assert claim(db, "one", now=100)
    assert claim(db, "two", now=101, dead=("one",))


def test_who_lost_the_claim_writes_nothing(db):
    with_replica(db)
    assert claim(db, "one", now=100)
    assert claim(db, "two", now=200)
    with db.write() as connection:
        lost = replicas.change_replica(connection, "r", token="one", status=ReplicaStatus.FAILED)
        kept = replicas.change_replica(connection, "r", token="two", message="mine")
    assert (lost, kept) == (False, True)
    with db.read() as connection:
        found = replicas.get_replica(connection, "r")
    assert found is not None
    assert (found.status, found.message) == (ReplicaStatus.PENDING, "mine")


def test_a_heartbeat_renews_only_what_has_not_expired(db):
    with_replica(db)
    assert claim(db, "one", now=100)
    with db.write() as connection:
        replicas.CLAIMS.renew(connection, "one", 130, now=120)
    assert claim(db, "two", now=121), "it had expired at 110, and stays so"


def test_only_admitted_replicas_weigh(db):
    with_replica(db)
    with db.write() as connection:
        assert replicas.admitted_load(connection) == (0, 0)
        replicas.change_replica(connection, "r", status=ReplicaStatus.STAGING)
        assert replicas.admitted_load(connection) == (1, 5)
        replicas.change_replica(connection, "r", status=ReplicaStatus.STOPPED)
        assert replicas.admitted_load(connection) == (0, 0)


def test_an_endpoint_takes_its_deployments_and_replicas_with_it(db):
    with_replica(db)
    with db.write() as connection:
        endpoints.delete_endpoint(connection, "arn:e")
        assert replicas.all_replicas(connection) == []
        assert endpoints.all_deployments(connection) == []


def test_the_writers_lock_goes_round_in_the_order_it_was_asked_for():
    lock, order, ready = FairLock(), [], threading.Semaphore(0)

    def take(number: int) -> None:
        ready.release()
        with lock:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            ready.acquire()
            while len(lock._waiting) <= number:
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    with lock:
        assert order
