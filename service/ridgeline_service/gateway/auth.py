"""Who is calling: SigV4 signatures and bearer keys, checked against the newest snapshot.

S3 is not checked here: its bodies are streams, and the object store verifies them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.security.sigv4 import is_signed, verify
from ridgeline_service.snapshot import Snapshot, SnapshotReader


@dataclass(frozen=True)
class RootKey:
    """The key made at first start: it works until the first snapshot names the keys."""

    access_key_id: str
    secret_access_key: str
    api_key: str


@dataclass(frozen=True)
class Caller:
    """``principal`` is an access key id or the id of an API key; ``service`` the signed scope's."""

    principal: str
    service: str


class Authenticator:
    def __init__(
        self, snapshots: SnapshotReader, root: RootKey | None, now: Callable[[], datetime]
    ) -> None:
        self._snapshots = snapshots
        self._root = root
        self._now = now
        self._of: Snapshot | None = None
        self._secrets: Mapping[str, str] = {}
        self._bearers: Mapping[str, str] = {}

    def signed(self, exchange: Exchange, body: bytes) -> Caller:
        """The signer of the request. Raises AccessDeniedException with AWS's code."""
        self._refresh()
        verified = verify(
            exchange.signed,
            self._secrets,
            now=self._now(),
            body_sha256=lambda: hashlib.sha256(body).hexdigest(),
        )
        return Caller(verified.access_key_id, verified.service)

    def signed_for(self, service: str, exchange: Exchange, body: bytes) -> Caller:
        """The signer, who must have signed for ``service``."""
        caller = self.signed(exchange, body)
        if caller.service != service:
            raise AccessDeniedException(
                f"The request is signed for {caller.service!r}, not for {service!r}.",
                code="InvalidSignatureException",
            )
        return caller

    def bearer(self, exchange: Exchange) -> Caller:
        """The owner of the bearer key. Raises AccessDeniedException."""
        self._refresh()
        kind, _, token = exchange.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise AccessDeniedException(
                "No API key was sent. Send 'Authorization: Bearer KEY'; "
                "'ridgeline env' prints yours as OPENAI_API_KEY.",
                code="missing_api_key",
            )
        digest = hashlib.sha256(token.strip().encode("utf-8", "replace")).hexdigest()
        for known, key_id in self._bearers.items():
            if hmac.compare_digest(known, digest):
                return Caller(key_id, "")
        raise AccessDeniedException(
            "The API key is not known here. 'ridgeline env' prints yours as OPENAI_API_KEY.",
            code="invalid_api_key",
        )

    def either(self, exchange: Exchange, body: bytes) -> Caller:
        """For ``/api`` and ``/metrics``: a signature for ``sagemaker``, or a bearer key."""
        if not is_signed(exchange.signed):
            return self.bearer(exchange)
        return self.signed_for("sagemaker", exchange, body)

    def _refresh(self) -> None:
        snapshot = self._snapshots.current()
        if snapshot is self._of:
            return
        self._of = snapshot
        self._secrets = {key.access_key_id: key.secret_access_key for key in snapshot.credentials}
        self._bearers = {key.sha256: key.key_id for key in snapshot.api_keys}
        root = self._root
        if root is not None and snapshot.version == 0:
            self._secrets = {root.access_key_id: root.secret_access_key}
            digest = hashlib.sha256(root.api_key.encode()).hexdigest()
            self._bearers = {digest: root.access_key_id}
