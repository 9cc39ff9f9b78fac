"""Whether the S3 that ``s3_endpoint`` names can be used, before anything relies on it."""

from __future__ import annotations

from ridgeline.errors import Unavailable
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.snapshot import Credential

_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch"})
_SERVER_FAULT = 500
_PATIENCE_S = 5


def check_store(settings: Settings, data_dir: DataDir) -> None:
    """Ask the other S3 for its buckets; nothing is asked where the embedded store is used.

    Raises Unavailable, with the setting and the address, if no S3 answers there or it does not
    know the key. A key that may not list buckets is fine.
    """
    if not settings.s3_endpoint:
        return
    # Inner: `ridgeline up` without such a setting does without boto3.
    from botocore.exceptions import BotoCoreError, ClientError

    from ridgeline_service.objects.boto import make_client

    key = Credential(settings.s3_access_key_id, settings.s3_secret_access_key)
    try:
        client = make_client(
            settings.s3_endpoint, key, settings.region, attempts=1, read_timeout_s=_PATIENCE_S
        )
        told = client.list_buckets()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _WRONG_KEY:
            raise _unusable(settings, data_dir, f"refuses the key ({code})", _NO_KEY) from error
        if not code or code.isdecimal():  # what botocore makes of an answer without S3's XML
            raise _unusable(settings, data_dir, _NO_S3, _NO_STORE) from error
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status >= _SERVER_FAULT:
            raise _unusable(settings, data_dir, f"answers HTTP {status}", _NO_STORE) from error
    except (BotoCoreError, ValueError) as error:
        raise _unusable(settings, data_dir, f"cannot be used: {error}", _NO_STORE) from error
    else:
        if "Buckets" not in told:  # XML, but another kind
            raise _unusable(settings, data_dir, _NO_S3, _NO_STORE)


_NO_S3 = "answers, but not as an S3 does"
_NO_STORE = (
    "Start that object store, or correct the address; without s3_endpoint objects are kept in the "
    "data directory."
)
_NO_KEY = "Correct s3_access_key_id and s3_secret_access_key."


def _unusable(settings: Settings, data_dir: DataDir, what: str, hint: str) -> Unavailable:
    return Unavailable(
        f"{data_dir.settings}: the S3 at s3_endpoint {settings.s3_endpoint} {what}.", hint=hint
    )
