"""What the owner writes into settings.json works, or is refused with the file, the key and what is
allowed, before anything starts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings, load_settings, save_settings


def loaded(root: Path, settings: object) -> Settings:
    directory = DataDir(root)
    directory.settings.write_text(json.dumps(settings))
    return load_settings(directory)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("region", "", "a region's name"),
        ("region", "US East", "a region's name"),
        ("account_id", "12", "12 digits"),
        ("role_name", "a/b", "up to 64"),
        ("host", "", "an address"),
        ("port", 99999, "from 0 to 65535"),
        ("port", -1, "from 0 to 65535"),
        ("port", True, "of type int"),
        ("port", "8080", "of type int"),
        ("database_url", "nonsense", "postgresql://USER:PASSWORD@HOST/DATABASE"),
        ("database_url", "mysql://a/b", "postgresql://USER:PASSWORD@HOST/DATABASE"),
        ("database_url", "sqlite:///rel.db", "sqlite:////ABSOLUTE/PATH"),
        ("database_url", "sqlite:///a/b.db", "sqlite:////ABSOLUTE/PATH"),
        ("database_url", "sqlite:///:memory:", "sqlite:////ABSOLUTE/PATH"),
        ("s3_endpoint", "minio:9000", "the http(s):// address"),
        ("max_instances", -3, "from 1 to"),
        ("max_instances", 0, "from 1 to"),
        ("job_stop_grace_s", -1, "from 0 to"),
        ("job_stop_grace_s", float("nan"), "from 0 to"),
        ("strict_instance_types", 1, "of type bool"),
    ],
)
def test_a_value_that_cannot_work_is_refused(
    tmp_path: Path, name: str, value: object, allowed: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        loaded(tmp_path, {name: value})
    assert str(refused.value).startswith(f"{tmp_path / 'settings.json'}: {name} must be ")
    assert allowed in str(refused.value)


def test_a_password_in_a_wrong_url_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        loaded(tmp_path, {"database_url": "mysql://u:secret@host/b"})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("settings", [[], "text", 7, None])
def test_settings_are_an_object(tmp_path: Path, settings: object) -> None:
    named = re.escape(str(tmp_path / "settings.json"))
    with pytest.raises(InvalidInput, match=f"{named} must hold a JSON object"):
        loaded(tmp_path, settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"region": "us-gov-west-1", "account_id": "000000000000", "port": 0, "host": "::1"},
        {"database_url": "postgresql://u:p@db:5432/ridgeline", "max_instances": 1},
        {"database_url": "sqlite:////var/lib/x.db", "s3_endpoint": "http://minio:9000"},
        {"job_stop_grace_s": 30, "strict_instance_types": True},
    ],
)
def test_what_works_is_taken_and_kept(tmp_path: Path, settings: dict[str, object]) -> None:
    found = loaded(tmp_path, settings)
    assert {name: getattr(found, name) for name in settings} == settings
    save_settings(DataDir(tmp_path), found)
    assert load_settings(DataDir(tmp_path)) == found
