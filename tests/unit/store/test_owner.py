"""A database serves one data directory, wherever that is moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.store.database import Database, connect
from ridgeline_service.store.owner import claim_database


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


@pytest.mark.parametrize("url", ["postgresql://u:secret@host:port/db", "postgresql:secret"])
def test_what_is_no_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput, match="database_url") as refused:
        connect(url)
    assert "secret" not in str(refused.value)
