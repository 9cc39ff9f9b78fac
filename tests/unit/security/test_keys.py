"""Root, bearer and internal keys."""

from __future__ import annotations

import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.security import keys
from ridgeline_service.snapshot import ApiKey


def test_the_root_key_is_made_once_and_private(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / "new")
    first = keys.ensure_root_key(data_dir)
    assert stat.S_IMODE(data_dir.root_key.stat().st_mode) == 0o600
    assert keys.ensure_root_key(data_dir) == first
    assert set(json.loads(data_dir.root_key.read_text())) == {
        "access_key_id",
        "secret_access_key",
        "api_key",
    }


def test_an_open_root_key_file_is_closed_again(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    keys.ensure_root_key(data_dir)
    data_dir.root_key.chmod(0o644)
    keys.ensure_root_key(data_dir)
    assert stat.S_IMODE(data_dir.root_key.stat().st_mode) == 0o600


def test_processes_that_race_get_the_same_keys(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(lambda _: keys.ensure_root_key(data_dir), range(16)))
        internal = list(pool.map(lambda _: keys.ensure_internal_key(data_dir), range(16)))
    assert len(set(roots)) == 1
    assert len(set(internal)) == 1
    assert len(internal[0]) == 64
    assert sorted(os.listdir(tmp_path)) == ["root-key.json", "run"]
    assert os.listdir(tmp_path / "run") == ["internal-key"]
    assert stat.S_IMODE(data_dir.internal_key.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"access_key_id": 1}', "null", "{"])
def test_a_broken_root_key_file_is_named(tmp_path: Path, text: str) -> None:
    data_dir = DataDir(tmp_path)
    data_dir.root_key.write_text(text)
    with pytest.raises(InvalidInput, match=r"root-key\.json does not hold a root key"):
        keys.ensure_root_key(data_dir)


def test_keys_have_forms_that_clients_accept() -> None:
    access_key_id, secret = keys.make_key_pair()
    assert re.fullmatch(r"RLAK[A-Z2-7]{16}", access_key_id)
    assert len(secret) == 40
    assert re.fullmatch(r"rl-[A-Za-z0-9_-]{43}", keys.make_bearer_key())
    assert len({keys.make_bearer_key() for _ in range(50)}) == 50


def test_a_bearer_key_is_found_by_its_hash_alone() -> None:
    mine, other = keys.make_bearer_key(), keys.make_bearer_key()
    known = [ApiKey("k1", keys.hash_bearer_key(other)), ApiKey("k2", keys.hash_bearer_key(mine))]
    found = keys.find_bearer_key(mine, known)
    assert found is not None
    assert found.key_id == "k2"
    assert mine not in found.sha256
    assert keys.find_bearer_key(mine + "x", known) is None
    assert keys.find_bearer_key("", known) is None
    assert keys.find_bearer_key("\udcff", known) is None


def test_an_internal_key_that_a_disk_emptied_is_made_anew(tmp_path: Path) -> None:
    """Whoever sends no key at all had it."""
    data_dir = DataDir(tmp_path)
    keys.ensure_internal_key(data_dir)
    for left in ("", "\n"):
        data_dir.internal_key.write_text(left)
        assert len(keys.ensure_internal_key(data_dir)) == 64
