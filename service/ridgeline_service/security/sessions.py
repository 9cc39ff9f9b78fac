"""Temporary credentials, as STS gives them: a key pair and a token that end by themselves.

Nothing is stored. The secret is derived from that of the key which asked for it and from the
token, so whoever has neither cannot make one, and it ends with its key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_PREFIX = "RLST"


@dataclass(frozen=True)
class Session:
    """What a client signs with until ``expires_at``; ``token`` goes with each request."""

    access_key_id: str
    secret_access_key: str
    token: str
    expires_at: datetime


@dataclass(frozen=True)
class Signer:
    """Whose signature it is, by the key that was issued, and the secret that made it."""

    access_key_id: str
    secret: str


class SessionExpired(Exception):
    """The credentials were good until ``args[0]``, a datetime."""


def make_session(
    owner: str,
    secret: str,
    expires_at: datetime,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> Session:
    """For the key ``owner`` with its ``secret``."""
    said = {"key": owner, "until": int(expires_at.timestamp()), "id": random(12).hex()}
    token = _PREFIX + base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
    return Session(_key_id(token), _secret(secret, token), token, expires_at)


def signer_of(
    access_key_id: str, token: str, credentials: Mapping[str, str], now: datetime
) -> Signer | None:
    """Of an issued key, or of a session of one, which its ``token`` names; None for a stranger's.
    ``credentials`` maps the ids of issued keys to their secrets. Raises SessionExpired."""
    if access_key_id in credentials:
        return Signer(access_key_id, credentials[access_key_id])
    if not token.startswith(_PREFIX) or access_key_id != _key_id(token):
        return None
    try:
        said = json.loads(base64.urlsafe_b64decode(token.removeprefix(_PREFIX)))
        owner, until = said["key"], datetime.fromtimestamp(said["until"], UTC)
        secret = credentials[owner]
    except (ValueError, LookupError, TypeError, OverflowError, OSError):
        return None
    if now >= until:
        raise SessionExpired(until)
    return Signer(owner, _secret(secret, token))


def _key_id(token: str) -> str:
    digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
    return "RLAS" + base64.b32encode(digest[:10]).decode()


def _secret(secret: str, token: str) -> str:
    made = hmac.digest(secret.encode(), token.encode(), "sha256")
    return base64.urlsafe_b64encode(made[:30]).decode()
