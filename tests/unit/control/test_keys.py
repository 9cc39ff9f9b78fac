"""Keys, and the snapshot that publishes them."""

from __future__ import annotations

import hashlib

import pytest

from ridgeline.errors import NotFound
from ridgeline_service.snapshot import KeyLimits


class TestKeys:
    def test_a_key_works_from_the_moment_it_is_given_out_until_it_is_deleted(self, world):
        key = world.plane.keys.create("laptop")
        assert key["access_key_id"] in {c.access_key_id for c in world.snapshot().credentials}
        digest = hashlib.sha256(key["api_key"].encode()).hexdigest()
        assert digest in {known.sha256 for known in world.snapshot().api_keys}
        world.plane.keys.delete(key["key_id"])
        assert digest not in {known.sha256 for known in world.snapshot().api_keys}
        assert len(world.snapshot().credentials) == 1, "the root key stays"

    def test_secrets_are_never_listed_and_bearer_keys_never_stored(self, world):
        key = world.plane.keys.create("laptop")
        (listed,) = world.plane.keys.list()
        limits = {"requests_per_minute", "tokens_per_minute"}
        assert set(listed) == {"key_id", "name", "access_key_id", "created_at"} | limits
        stored = b"".join(path.read_bytes() for path in world.data_dir.database.parent.iterdir())
        assert key["api_key"].encode() not in stored

    def test_limits_of_a_key_are_published_with_both_of_its_names(self, world):
        world.plane.keys.create("free")
        key = world.plane.keys.create("ci", requests_per_minute=60, tokens_per_minute=9000)
        (limits,) = world.snapshot().limits
        assert limits == KeyLimits(key["key_id"], key["access_key_id"], 60, 9000)
        assert world.plane.keys.list()[1]["tokens_per_minute"] == 9000

    def test_deleting_an_unknown_key(self, world):
        with pytest.raises(NotFound):
            world.plane.keys.delete("ghost")


def test_the_snapshots_version_grows_and_is_not_spent_on_nothing(world):
    first = world.snapshot().version
    world.plane.keys.create("one")
    second = world.snapshot().version
    assert second > first
    world.model("m")
    world.tick()
    assert world.snapshot().version == second


def test_the_snapshot_is_private(world):
    assert world.data_dir.snapshot.stat().st_mode & 0o777 == 0o600
