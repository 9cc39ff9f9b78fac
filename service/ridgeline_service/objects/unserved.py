"""What S3 has and this store has not, refused by name: what is dropped is taken for done.

Reads are no lie: of a feature that is not here they are answered as S3 does for a bucket where
nobody has set it.
"""

from __future__ import annotations

from collections.abc import Iterable

from nanio.errors import NotImplemented_, S3Error

from ridgeline_service.objects import documents
from ridgeline_service.objects.http import S3Request, S3Response, require_current, xml
from ridgeline_service.objects.storage import ObjectStore

_SUB_RESOURCES = frozenset(
    (
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "logging",
        "metadataConfiguration",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "session",
        "tagging",
        "torrent",
        "versioning",
        "website",
    )
)
_BUCKET_HAS: dict[str, tuple[str, str]] = {
    "accelerate": ("AccelerateConfiguration", ""),
    "acl": documents.OWNERS_ACL,
    "logging": ("BucketLoggingStatus", ""),
    "notification": ("NotificationConfiguration", ""),
    "requestPayment": ("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
    "versioning": ("VersioningConfiguration", ""),
}
_BUCKET_LACKS = {
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "ownershipControls": "OwnershipControlsNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "policyStatus": "NoSuchBucketPolicy",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
    "replication": "ReplicationConfigurationNotFoundError",
    "tagging": "NoSuchTagSet",
    "website": "NoSuchWebsiteConfiguration",
}
_OBJECT_HAS = {"acl": documents.OWNERS_ACL, "tagging": ("Tagging", "<TagSet></TagSet>")}

# By header: the values that ask for what happens anyway. With one owner, so do three of the ACLs.
# What asks for encryption with keys of the service passes, because AWS's own clients send it.
_HEADERS: dict[str, frozenset[str]] = {
    "x-amz-acl": frozenset(("private", "bucket-owner-full-control", "bucket-owner-read")),
    "x-amz-bucket-object-lock-enabled": frozenset(("false",)),
    "x-amz-if-match-last-modified-time": frozenset(),
    "x-amz-if-match-size": frozenset(),
    "x-amz-object-lock-legal-hold": frozenset(("OFF",)),
    "x-amz-object-ownership": frozenset(("BucketOwnerEnforced",)),
    "x-amz-storage-class": frozenset(("STANDARD",)),
    "x-amz-tagging": frozenset(),
    "x-amz-website-redirect-location": frozenset(),
    "x-amz-write-offset-bytes": frozenset(),
}
_HEADER_PREFIXES = (
    "x-amz-copy-source-server-side-encryption-customer-",
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption-customer-",
)


class NotConfigured(S3Error):  # type: ignore[misc]
    message = "There is no such configuration on the bucket."
    http_status = 404

    def __init__(self, code: str, bucket: str) -> None:
        self.code = code
        super().__init__(resource=bucket)


def refuse_headers(request: S3Request) -> None:
    """Raises NotImplemented_ for a header that asks for what is not done. Some clients put the
    headers of a presigned request into its query."""
    _refuse(request.headers.items())
    _refuse((name.lower(), value) for name, value in request.query.items())


def answer(request: S3Request, store: ObjectStore) -> S3Response | None:
    """What a sub-resource that is not served says, None where the request names none. Raises
    NotConfigured, InvalidArgument for a version that there is not, and NotImplemented_ for anything
    but a read that has an answer."""
    named = min(_SUB_RESOURCES & request.query.keys(), default="")
    if not named:
        return None
    has = _OBJECT_HAS if request.key else _BUCKET_HAS
    lacks = {} if request.key else _BUCKET_LACKS
    if request.method != "GET" or not request.bucket or named not in {*has, *lacks}:
        raise NotImplemented_(f"The sub-resource {named!r} is not supported here.")
    if request.key:
        require_current(request.query)
        store.head(request.bucket, request.key)
    store.require_bucket(request.bucket)
    if named in lacks:
        raise NotConfigured(lacks[named], request.bucket)
    return xml(documents.whole(*has[named]))


def _refuse(said: Iterable[tuple[str, str]]) -> None:
    for name, value in said:
        served = _HEADERS.get(name, frozenset())
        known = name in _HEADERS or name.startswith(_HEADER_PREFIXES)
        if known and value and value not in served:
            other = f"Send {' or '.join(sorted(served))}, or leave" if served else "Leave"
            raise NotImplemented_(
                f"The header {name} asks for what is not supported here. {other} it out."
            )
