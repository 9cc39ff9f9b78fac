"""A database serves one data directory, wherever that is moved."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import alembic.command
import pytest
from sqlalchemy import select

import ridgeline_service.store.database as database_module
from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import open_database
from ridgeline_service.store.database import Database, connect
from ridgeline_service.store.owner import claim_database
from ridgeline_service.store.tables import owner


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = connect(f"sqlite:///{tmp_path / 'shared.db'}")
    found.migrate()
    return found


def test_a_second_directory_is_refused_and_both_are_named(
    database: Database, tmp_path: Path
) -> None:
    first, second = DataDir(tmp_path / "first"), DataDir(tmp_path / "second")
    claim_database(database, first)
    for _ in range(2):
        with pytest.raises(InvalidInput) as refused:
            claim_database(database, second)
    assert refused.value.message.startswith(f"The database of {second.root} belongs to another")
    assert refused.value.message.endswith(f":{first.root}.")
    assert str(second.settings) in refused.value.hint
    claim_database(database, first)


def test_a_moved_directory_keeps_its_database(database: Database, tmp_path: Path) -> None:
    old, new = DataDir(tmp_path / "old"), DataDir(tmp_path / "new")
    claim_database(database, old)
    old.root.rename(new.root)
    claim_database(database, new)
    with pytest.raises(InvalidInput, match=f":{new.root}\\."):
        claim_database(database, old)


def test_first_starts_at_once_agree_on_one_id(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / "new")
    databases = [connect(f"sqlite:///{tmp_path / f'{number}.db'}") for number in range(8)]
    for database in databases:
        database.migrate()
    together = threading.Barrier(len(databases))

    def start(database: Database) -> None:
        together.wait()
        claim_database(database, data_dir)

    with ThreadPoolExecutor(len(databases)) as pool:
        list(pool.map(start, databases))
    ids = set()
    for database in databases:
        with database.read() as connection:
            ids.add(connection.execute(select(owner.c.data_dir_id)).scalar_one())
    assert ids == {data_dir.identity.read_text().strip()}


def test_who_is_refused_has_migrated_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_database(database, DataDir(tmp_path / "first"))
    # To a newer version the schema would be an old one.
    monkeypatch.setattr(database_module, "SCHEMA_HEAD", "newer")
    migrated: list[object] = []
    monkeypatch.setattr(alembic.command, "upgrade", lambda *_: migrated.append(_))
    settings = Settings(database_url=str(database.engine.url))
    with pytest.raises(InvalidInput, match="belongs to another data directory"):
        open_database(settings, DataDir(tmp_path / "second"))
    assert migrated == []
    open_database(settings, DataDir(tmp_path / "first")).close()
    assert migrated


@pytest.mark.parametrize("url", ["postgresql://u:secret@host:port/db", "postgresql:secret"])
def test_what_is_no_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput, match="database_url") as refused:
        connect(url)
    assert "secret" not in str(refused.value)
