"""Temporary credentials, as STS gives them: a key pair and a token that end by themselves.

Nothing is stored. The secret is derived from that of the key which asked for it and from the
token, so whoever has neither cannot make one, and it ends with its key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

# Whose, until when (seconds since the epoch), which one, its name.
_TOKEN = re.compile(
    r"RLST\.([A-Za-z0-9_-]+)\.([0-9]{1,11})\.[0-9a-f]{24}\.([\w+=,.@-]{0,64})", re.A
)


@dataclass(frozen=True)
class Session:
    """What a client signs with until ``expires_at``; ``token`` goes with each request."""

    access_key_id: str
    secret_access_key: str
    token: str
    expires_at: datetime


@dataclass(frozen=True)
class Signer:
    """Whose signature it is, by the key that was issued, and the secret that made it; of a session
    also its name and its end."""

    access_key_id: str
    secret: str
    session: str = ""
    until: datetime | None = None


class SessionExpired(Exception):
    """The credentials were good until ``args[0]``, a datetime."""


def make_session(
    owner: str,
    secret: str,
    expires_at: datetime,
    name: str = "",
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> Session:
    """For the key ``owner`` with its ``secret``. ``name`` is one that STS allows."""
    whose = base64.urlsafe_b64encode(owner.encode()).decode().rstrip("=")
    token = f"RLST.{whose}.{int(expires_at.timestamp())}.{random(12).hex()}.{name}"
    return Session(_key_id(token), _secret(secret, token), token, expires_at)


def signer_of(
    access_key_id: str, token: str, credentials: Mapping[str, str], now: datetime
) -> Signer | None:
    """Of an issued key, or of a session of one, which its ``token`` names; None for a stranger's.
    ``credentials`` maps the ids of issued keys to their secrets. Raises SessionExpired."""
    if access_key_id in credentials:
        # Its secret is all that it needs. A token beside it is not its own: one of AWS's stays in a
        # shell whose keys were replaced by ours.
        return Signer(access_key_id, credentials[access_key_id])
    said = _TOKEN.fullmatch(token)
    if said is None or access_key_id != _key_id(token):
        return None
    owner = _owner(said.group(1))
    if owner not in credentials:
        return None
    until = datetime.fromtimestamp(int(said.group(2)), UTC)
    if now >= until:
        raise SessionExpired(until)
    return Signer(owner, _secret(credentials[owner], token), said.group(3), until)


def _owner(whose: str) -> str:
    try:
        return base64.urlsafe_b64decode(whose + "=" * (-len(whose) % 4)).decode()
    except ValueError:
        return ""


def _key_id(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()
    return "RLAS" + base64.b32encode(digest[:10]).decode()


def _secret(secret: str, token: str) -> str:
    made = hmac.digest(secret.encode(), token.encode(), "sha256")
    return base64.urlsafe_b64encode(made[:30]).decode()
