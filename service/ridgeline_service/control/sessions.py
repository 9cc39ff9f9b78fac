"""Temporary credentials of STS: AssumeRole of the one role that there is, and GetSessionToken.

Nothing is stored: the credentials are derived from the key that asks, and end with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.errors import AccessDeniedException, AwsError
from ridgeline_service.security.keys import RootKey
from ridgeline_service.security.sessions import make_session
from ridgeline_service.store import journal

_NARROWING = ("Policy", "PolicyArns", "SerialNumber", "TokenCode")
_ASSUMED_S, _OWN_S = 3600, 12 * 3600
_LEAST_S, _MOST_S = 900, 36 * 3600


class ValidationError(AwsError):
    """STS's answer to bad input."""

    code = "ValidationError"
    http_status = 400


class Sessions:
    """One method an operation; ``principal`` is the access key id that signed the call."""

    def __init__(self, context: Context, root: RootKey) -> None:
        self._context = context
        self._root = root

    def assume_role(self, request: Mapping[str, Any], principal: str) -> dict[str, Any]:
        """Raises AccessDenied for a role that is not this service's."""
        settings, name = self._context.settings, request["RoleSessionName"]
        if request["RoleArn"] != settings.role_arn:
            raise AccessDeniedException(
                f"Role {request['RoleArn'][:200]!r} cannot be assumed: the role of this service is "
                f"{settings.role_arn}.",
                code="AccessDenied",
            )
        role = f"arn:aws:sts::{settings.account_id}:assumed-role/{settings.role_name}"
        return {
            "Credentials": self._credentials(request, principal, _ASSUMED_S),
            "AssumedRoleUser": {"AssumedRoleId": f"{principal}:{name}", "Arn": f"{role}/{name}"},
        }

    def get_session_token(self, request: Mapping[str, Any], principal: str) -> dict[str, Any]:
        return {"Credentials": self._credentials(request, principal, _OWN_S)}

    def _credentials(
        self, request: Mapping[str, Any], principal: str, default_s: int
    ) -> dict[str, Any]:
        for name in _NARROWING:
            if request.get(name):
                raise ValidationError(
                    f"{name} is not supported: a key may do all that this service does, and so "
                    "may what it assumes.",
                    hint="Leave it out.",
                )
        seconds = request.get("DurationSeconds", default_s)
        if not _LEAST_S <= seconds <= _MOST_S:
            raise ValidationError(
                f"DurationSeconds is {seconds}: it must be from {_LEAST_S} to {_MOST_S}."
            )
        now = datetime.fromtimestamp(int(self._context.clock()), UTC)
        until = now + timedelta(seconds=seconds)
        session = make_session(principal, self._secret_of(principal), until)
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
