"""STS: what AssumeRole and GetSessionToken give, and to whom."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ridgeline_service.control.sessions import ValidationError
from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.security.keys import ensure_root_key
from ridgeline_service.security.sessions import signer_of


def assume(world, principal: str, until: int | None = None, **changes: object):
    role = world.plane.sessions._context.settings.role_arn
    request = {"RoleArn": role, "RoleSessionName": "nightly", **changes}
    return world.plane.sessions.assume_role(request, principal, until)


def test_a_session_is_its_keys_and_lasts_as_long_as_asked(world):
    root = ensure_root_key(world.data_dir)
    made = world.plane.keys.create("team")
    keys = {
        root.access_key_id: root.secret_access_key,
        made["access_key_id"]: made["secret_access_key"],
    }
    for principal in keys:
        answer = assume(world, principal, DurationSeconds=900)
        got = answer["Credentials"]
        now = datetime.fromtimestamp(world.now, UTC)
        assert (got["Expiration"] - now).total_seconds() == pytest.approx(900, abs=1)
        signer = signer_of(got["AccessKeyId"], got["SessionToken"], keys, now)
        assert signer is not None
        assert (signer.access_key_id, signer.secret) == (principal, got["SecretAccessKey"])
        assert answer["AssumedRoleUser"]["Arn"].endswith("/nightly")
    own = world.plane.sessions.get_session_token({}, root.access_key_id, None)["Credentials"]
    assert (own["Expiration"] - now).total_seconds() == pytest.approx(12 * 3600, abs=1)


def test_what_cannot_be_given_is_refused_by_name(world):
    root = ensure_root_key(world.data_dir).access_key_id
    with pytest.raises(AccessDeniedException, match="the role of this service is arn:aws:iam"):
        assume(world, root, RoleArn="arn:aws:iam::1:role/Admin")
    with pytest.raises(ValidationError, match="Policy is not supported"):
        assume(world, root, Policy="{}")
    with pytest.raises(ValidationError, match="DurationSeconds is 60"):
        assume(world, root, DurationSeconds=60)
    made = world.plane.keys.create("team")
    world.plane.keys.delete(made["key_id"])
    with pytest.raises(AccessDeniedException, match="was deleted"):
        assume(world, made["access_key_id"])


def test_what_a_session_assumes_ends_with_it(world):
    root = ensure_root_key(world.data_dir).access_key_id
    until = int(world.now) + 1000
    got = assume(world, root, until=until, DurationSeconds=3600)["Credentials"]
    assert got["Expiration"].timestamp() == until
    with pytest.raises(AccessDeniedException, match="Cannot call GetSessionToken with session"):
        world.plane.sessions.get_session_token({}, root, until)
