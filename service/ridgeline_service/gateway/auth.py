"""Who is calling: SigV4 signatures and bearer keys, checked against the newest snapshot.

S3 is not checked here: its bodies are streams, and the object store verifies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.security.keys import RootKey, find_bearer_key, hash_bearer_key
from ridgeline_service.security.sigv4 import admit, is_signed, prove
from ridgeline_service.snapshot import ApiKey, Snapshot, SnapshotReader


class Unauthenticated(AccessDeniedException):
    """No bearer key, or one that is not known: 401, which OpenAI's clients match on."""

    http_status = 401


@dataclass(frozen=True)
class Caller:
    """``principal`` is an access key id or the id of an API key; ``service`` the signed scope's;
    of temporary credentials also their name and their end."""

    principal: str
    service: str
    session: str = ""
    until: datetime | None = None


class Authenticator:
    def __init__(
        self, snapshots: SnapshotReader, root: RootKey, now: Callable[[], datetime]
    ) -> None:
        """``root``, the key made at first start, works until the first snapshot names the keys."""
        self._snapshots = snapshots
        self._root = root
        self._now = now
        self._of: Snapshot | None = None
        self._secrets: Mapping[str, str] = {}
        self._bearers: Sequence[ApiKey] = ()

    async def signed(self, exchange: Exchange, limit: int) -> tuple[Caller, bytes]:
        """The signer of the request, and its body of at most ``limit`` bytes.

        The body is read only if the key it claims exists: strangers are refused at once. Raises
        AccessDeniedException with AWS's code, then PayloadTooLarge.
        """
        self._refresh()
        request = exchange.signed
        admitted = admit(request, self._secrets, now=self._now())
        body = await exchange.body(limit)
        verified = prove(admitted, request, lambda: hashlib.sha256(body).hexdigest())
        signer = verified.signer
        return Caller(signer.access_key_id, verified.service, signer.session, signer.until), body

    async def signed_for(
        self, service: str, exchange: Exchange, limit: int
    ) -> tuple[Caller, bytes]:
        """The signer, who must have signed for ``service``, and the body."""
        caller, body = await self.signed(exchange, limit)
        if caller.service != service:
            raise AccessDeniedException(
                f"The request is signed for {caller.service!r}, not for {service!r}.",
                code="InvalidSignatureException",
            )
        return caller, body

    def bearer(self, exchange: Exchange) -> Caller:
        """The owner of the bearer key. Raises AccessDeniedException."""
        self._refresh()
        kind, _, token = exchange.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise Unauthenticated(
                "No API key was sent. Send 'Authorization: Bearer KEY'; "
                "'ridgeline env' prints yours as OPENAI_API_KEY.",
                code="missing_api_key",
            )
        found = find_bearer_key(token.strip(), self._bearers)
        if found is not None:
            return Caller(found.key_id, "")
        raise Unauthenticated(
            "The API key is not known here. 'ridgeline env' prints yours as OPENAI_API_KEY.",
            code="invalid_api_key",
        )

    async def either(self, exchange: Exchange, limit: int) -> tuple[Caller, bytes]:
        """For ``/api`` and ``/metrics``: a signature for ``sagemaker``, or a bearer key."""
        if is_signed(exchange.signed):
            return await self.signed_for("sagemaker", exchange, limit)
        return self.bearer(exchange), await exchange.body(limit)

    def _refresh(self) -> None:
        snapshot = self._snapshots.current()
        if snapshot is self._of:
            return
        self._of = snapshot
        self._secrets = {key.access_key_id: key.secret_access_key for key in snapshot.credentials}
        self._bearers = snapshot.api_keys
        if snapshot.version == 0:
            root = self._root
            self._secrets = {root.access_key_id: root.secret_access_key}
            self._bearers = (ApiKey(root.access_key_id, hash_bearer_key(root.api_key)),)
