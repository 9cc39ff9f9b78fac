"""Temporary credentials of STS: AssumeRole of the one role that there is, and GetSessionToken.

Nothing is stored: the credentials are derived from the key that asks, and end with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.errors import AccessDeniedException, AwsError
from ridgeline_service.security.keys import RootKey
from ridgeline_service.security.sessions import make_session
from ridgeline_service.store import journal

_NARROWING = ("Policy", "PolicyArns", "SerialNumber", "TokenCode")
_LEAST_S = 900
_ASSUMED_S, _LONGEST_ASSUMED_S = 3600, 12 * 3600
_OWN_S, _LONGEST_OWN_S = 12 * 3600, 36 * 3600


class ValidationError(AwsError):
    """STS's answer to bad input."""

    code = "ValidationError"
    http_status = 400


class Sessions:
    """One method an operation; ``principal`` is the access key id that signed the call, ``until``
    the end of the temporary credentials that did (seconds since the epoch), if they were such."""

    def __init__(self, context: Context, root: RootKey) -> None:
        self._context = context
        self._root = root

    def assume_role(
        self, request: Mapping[str, Any], principal: str, until: int | None
    ) -> dict[str, Any]:
        """What a session assumes ends with it. Raises AccessDenied for a role that is not this
        service's."""
        settings, name = self._context.settings, request["RoleSessionName"]
        if request["RoleArn"] != settings.role_arn:
            raise AccessDeniedException(
                f"Role {request['RoleArn'][:200]!r} cannot be assumed: the role of this service is "
                f"{settings.role_arn}.",
                code="AccessDenied",
            )
        ends_at = self._end(request, _ASSUMED_S, _LONGEST_ASSUMED_S)
        if until is not None:
            ends_at = min(ends_at, until)
        role = f"arn:aws:sts::{settings.account_id}:assumed-role/{settings.role_name}"
        return {
            "Credentials": self._credentials(principal, ends_at, name),
            "AssumedRoleUser": {
                "AssumedRoleId": f"{settings.role_id}:{name}",
                "Arn": f"{role}/{name}",
            },
        }

    def get_session_token(
        self, request: Mapping[str, Any], principal: str, until: int | None
    ) -> dict[str, Any]:
        if until is not None:
            raise AccessDeniedException(
                "Cannot call GetSessionToken with session credentials.", code="AccessDenied"
            )
        ends_at = self._end(request, _OWN_S, _LONGEST_OWN_S)
        return {"Credentials": self._credentials(principal, ends_at, "")}

    def _end(self, request: Mapping[str, Any], default_s: int, longest_s: int) -> int:
        """Seconds since the epoch. Raises ValidationError."""
        for name in _NARROWING:
            if request.get(name):
                raise ValidationError(
                    f"{name} is not supported: a key may do all that this service does, and so "
                    "may what it assumes.",
                    hint="Leave it out.",
                )
        seconds: int = request.get("DurationSeconds", default_s)
        if not _LEAST_S <= seconds <= longest_s:
            raise ValidationError(
                f"DurationSeconds is {seconds}: it must be from {_LEAST_S} to {longest_s}."
            )
        return int(self._context.clock()) + seconds

    def _credentials(self, principal: str, ends_at: int, name: str) -> dict[str, Any]:
        until = datetime.fromtimestamp(ends_at, UTC)
        session = make_session(principal, self._secret_of(principal), until, name)
        return {
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret_access_key,
            "SessionToken": session.token,
            "Expiration": session.expires_at,
        }

    def _secret_of(self, access_key_id: str) -> str:
        if access_key_id == self._root.access_key_id:
            return self._root.secret_access_key
        with self._context.db.read() as connection:
            for key in journal.all_keys(connection):
                if key.access_key_id == access_key_id:
                    return key.secret_access_key
        raise AccessDeniedException(
            f"The key {access_key_id!r} was deleted.", code="InvalidClientTokenId"
        )
