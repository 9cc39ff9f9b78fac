"""Places in S3 that requests name: checked before there is a job. Whether anything lies there is
the job's to find out."""

from __future__ import annotations

from ridgeline_service.errors import ValidationException
from ridgeline_service.objects.reading import S3Failed, parse_uri


def check_folder(field: str, uri: str) -> tuple[str, str]:
    """Its bucket and key, which may be empty. Raises ValidationException."""
    try:
        return parse_uri(uri)
    except S3Failed as error:
        raise ValidationException(f"{field}: {error.message}") from error


def check_object(field: str, uri: str) -> None:
    """Raises ValidationException for a bucket alone, too."""
    bucket, key = check_folder(field, uri)
    if not key:
        raise ValidationException(
            f"{field} {uri!r} names no object.", hint=f"Give it as s3://{bucket}/KEY."
        )
