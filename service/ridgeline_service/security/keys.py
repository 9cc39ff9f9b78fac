"""Keys: made, kept on disk, hashed and compared.

A key pair signs AWS requests, so its secret is kept in clear (mode 0600); a bearer key is kept as
its SHA-256 alone, which is enough because it is 256 random bits and not a password. Where issued
keys are stored, and who may do what with them, is not known here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir
from ridgeline_service.snapshot import ApiKey

BEARER_PREFIX = "rl-"
RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True)
class RootKey:
    """The key made at first start: a SigV4 pair and a bearer key of the same owner."""

    access_key_id: str
    secret_access_key: str
    api_key: str


def make_key_pair(random: RandomBytes = secrets.token_bytes) -> tuple[str, str]:
    """A new access key id (20 characters, ``RLAK...``) and its secret (40 characters)."""
    access_key_id = "RLAK" + base64.b32encode(random(10)).decode()
    return access_key_id, base64.urlsafe_b64encode(random(30)).decode()


def make_bearer_key(random: RandomBytes = secrets.token_bytes) -> str:
    """A new key for the OpenAI and ``/api`` routes: ``rl-`` and 256 random bits."""
    return BEARER_PREFIX + base64.urlsafe_b64encode(random(32)).decode().rstrip("=")


def hash_bearer_key(key: str) -> str:
    """What is stored of a bearer key: its SHA-256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def find_bearer_key(key: str, known: Iterable[ApiKey]) -> ApiKey | None:
    """The stored key that ``key`` is, or None. Compares in constant time, stops at no match."""
    digest = hash_bearer_key(key)
    found = None
    for candidate in known:
        if hmac.compare_digest(candidate.sha256, digest):
            found = candidate
    return found


def make_root_key(random: RandomBytes = secrets.token_bytes) -> RootKey:
    access_key_id, secret_access_key = make_key_pair(random)
    return RootKey(access_key_id, secret_access_key, make_bearer_key(random))


def ensure_root_key(data_dir: DataDir, random: RandomBytes = secrets.token_bytes) -> RootKey:
    """Read the root key; make it first if there is none. Safe when several processes race.

    Raises InvalidInput when the file is there but cannot be read as a key.
    """
    path = data_dir.root_key
    if not path.exists():
        _create_once(path, json.dumps(asdict(make_root_key(random)), indent=2) + "\n")
    path.chmod(0o600)
    names = {field.name for field in fields(RootKey)}
    try:
        raw = json.loads(path.read_text())
    except ValueError:
        raw = None
    if not isinstance(raw, dict) or not all(
        isinstance(raw.get(name), str) and raw[name] for name in names
    ):
        raise InvalidInput(
            f"{path} does not hold a root key",
            hint=f"It needs the strings {', '.join(sorted(names))}. Restore it from a backup, or "
            "delete it to have a new key made: clients then need the new one.",
        )
    return RootKey(**{name: raw[name] for name in names})


def ensure_internal_key(data_dir: DataDir, random: RandomBytes = secrets.token_bytes) -> str:
    """The key by which the control plane knows the gateway; made first if there is none."""
    path = data_dir.internal_key
    if path.exists() and not path.read_text().strip():
        path.unlink()  # what a disk made of it: whoever sends no key would have it
    if not path.exists():
        _create_once(path, random(32).hex())
    path.chmod(0o600)
    return path.read_text().strip()


def _create_once(path: Path, text: str) -> None:
    """Create the file with mode 0600 and its whole content, unless another process just did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        pass  # the other process's key is as good, and it is the one that both now read
    finally:
        Path(name).unlink()
