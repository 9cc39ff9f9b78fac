"""The snapshot: all that the gateway and the object store know of the control plane's state.

One versioned file (mode 0600, replaced atomically), written by the control plane alone: routes to
running replicas and the keys that may call. So endpoints answer on while the control plane is away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from ridgeline_service.files import write_atomic


@dataclass(frozen=True)
class Credential:
    """A SigV4 key pair. The secret is needed in clear to verify a signature."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class ApiKey:
    """A bearer key for the OpenAI and ``/api`` routes, known by the SHA-256 of its text (hex)."""

    key_id: str
    sha256: str


@dataclass(frozen=True)
class KeyLimits:
    """What a key may use a minute, by its bearer key and its key pair together. None: no limit."""

    key_id: str
    access_key_id: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True)
class ReplicaRoute:
    """A replica that answers: where, and the token it wants in ``X-Ridgeline-Token``."""

    replica_id: str
    url: str
    token: str


@dataclass(frozen=True)
class CaptureRoute:
    """Where requests are kept, and which: ``percent`` of them, what was asked, what was answered.
    Bodies of ``csv_types`` and ``json_types`` as text. ``destination`` ends without a slash."""

    destination: str
    percent: int
    input: bool
    output: bool
    csv_types: tuple[str, ...]
    json_types: tuple[str, ...]


@dataclass(frozen=True)
class VariantRoute:
    """A variant of one deployment. While an update moves traffic a name comes twice, once for each
    deployment: ``share`` is the part of the variant's requests that this one gets; with 0 it only
    stands by. ``max_concurrency`` is how many requests a serverless variant takes at once."""

    name: str
    weight: float
    replicas: tuple[ReplicaRoute, ...]
    log_stream_prefix: str = ""
    deployment: str = ""
    share: float = 1.0
    max_concurrency: int | None = None
    capture: CaptureRoute | None = None


@dataclass(frozen=True)
class AsyncRoute:
    """Where results of InvokeEndpointAsync go, as S3 URIs (``failure_path`` may be empty), and how
    many requests one instance works on at once."""

    output_path: str
    failure_path: str = ""
    max_concurrent: int = 4


@dataclass(frozen=True)
class EndpointRoute:
    """One endpoint. ``task`` is ``text-generation`` or ``text-embedding`` for endpoints that the
    OpenAI routes serve, else empty. ``created_at`` is in seconds since the epoch."""

    name: str
    arn: str
    status: str
    task: str
    created_at: float
    variants: tuple[VariantRoute, ...]
    asynchronous: AsyncRoute | None = None


@dataclass(frozen=True)
class Snapshot:
    version: int = 0
    region: str = "us-east-1"
    account_id: str = "123456789012"
    credentials: tuple[Credential, ...] = ()
    api_keys: tuple[ApiKey, ...] = ()
    limits: tuple[KeyLimits, ...] = ()
    endpoints: dict[str, EndpointRoute] = field(default_factory=dict)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    write_atomic(path, json.dumps(asdict(snapshot)), mode=0o600)


def read_snapshot(path: Path) -> Snapshot:
    """Read the file. What another version knows and this one does not is left out.

    Raises FileNotFoundError before the control plane's first start, and ValueError for a file that
    is damaged or lacks what it must have.
    """
    try:
        raw = json.loads(path.read_text())
        return Snapshot(
            version=raw["version"],
            region=raw["region"],
            account_id=raw["account_id"],
            credentials=tuple(Credential(**_known(Credential, c)) for c in raw["credentials"]),
            api_keys=tuple(ApiKey(**_known(ApiKey, item)) for item in raw["api_keys"]),
            limits=tuple(KeyLimits(**_known(KeyLimits, item)) for item in raw["limits"]),
            endpoints={name: _endpoint(item) for name, item in raw["endpoints"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no snapshot: {error!r}") from error


class SnapshotReader:
    """The newest snapshot: re-read when the file was replaced, else one stat call. While the file
    is damaged the last good one holds: the control plane writes it anew when it starts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._snapshot = Snapshot()

    def current(self) -> Snapshot:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return self._snapshot
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            try:
                self._snapshot = read_snapshot(self._path)
            except ValueError:
                return self._snapshot
            self._stamp = stamp
        return self._snapshot


def _endpoint(raw: Mapping[str, Any]) -> EndpointRoute:
    asynchronous = raw["asynchronous"]
    known = _known(EndpointRoute, raw) | {
        "variants": tuple(_variant(item) for item in raw["variants"]),
        "asynchronous": asynchronous and AsyncRoute(**_known(AsyncRoute, asynchronous)),
    }
    return EndpointRoute(**known)


def _variant(raw: Mapping[str, Any]) -> VariantRoute:
    capture = raw.get("capture")
    known = _known(VariantRoute, raw) | {
        "replicas": tuple(ReplicaRoute(**_known(ReplicaRoute, item)) for item in raw["replicas"]),
        "capture": capture and _capture(capture),
    }
    return VariantRoute(**known)


def _capture(raw: Mapping[str, Any]) -> CaptureRoute:
    lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
    return CaptureRoute(**_known(CaptureRoute, {**raw, **lists}))


def _known(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    names = _names(kind)
    return {name: value for name, value in raw.items() if name in names}


@cache
def _names(kind: Any) -> frozenset[str]:
    return frozenset(item.name for item in fields(kind))
