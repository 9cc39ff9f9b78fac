"""Issued keys: create, list, delete. The root key lies in a file and is no row."""

from __future__ import annotations

from typing import Any

from ridgeline.errors import NotFound
from ridgeline_service.control.context import Context
from ridgeline_service.control.names import to_datetime
from ridgeline_service.security.keys import hash_bearer_key, make_bearer_key, make_key_pair
from ridgeline_service.store import journal
from ridgeline_service.store.records import KeyRecord

ROOT_KEY_ID = "root"


class Keys:
    """A key is a SigV4 pair and a bearer key of one owner."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def create(
        self,
        name: str,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> dict[str, Any]:
        """The only answer that ever holds the secrets. The gateway enforces the limits."""
        access_key_id, secret_access_key = make_key_pair()
        api_key = make_bearer_key()
        record = KeyRecord(
            key_id=f"key-{self._context.ids()}",
            name=name,
            created_at=self._context.now(),
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            api_key_sha256=hash_bearer_key(api_key),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        with self._context.db.write() as connection:
            journal.add_key(connection, record)
            self._context.event(connection, record.key_id, "Created", message=name)
        self._context.changed()
        return {
            "key_id": record.key_id,
            "name": name,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
            "api_key": api_key,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }

    def list(self) -> list[dict[str, Any]]:
        """Without any secret."""
        with self._context.db.read() as connection:
            return [
                {
                    "key_id": record.key_id,
                    "name": record.name,
                    "access_key_id": record.access_key_id,
                    "created_at": to_datetime(record.created_at),
                    "requests_per_minute": record.requests_per_minute,
                    "tokens_per_minute": record.tokens_per_minute,
                }
                for record in journal.all_keys(connection)
            ]

    def delete(self, key_id: str) -> None:
        """Raises NotFound."""
        with self._context.db.write() as connection:
            if not journal.delete_key(connection, key_id):
                raise NotFound(f"there is no key {key_id!r}", hint="List the keys first.")
            self._context.event(connection, key_id, "Deleted")
        self._context.changed()
