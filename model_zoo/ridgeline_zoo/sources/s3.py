"""``s3://bucket/prefix/``: the files of a model below a prefix, or one GGUF object.

Works over whatever client it is given (endpoint, keys and region are the client's).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from ridgeline_zoo.errors import BadSource, SourceNotFound, SourceUnavailable
from ridgeline_zoo.sources.base import FetchRequest, S3Client, Source
from ridgeline_zoo.sources.selection import refuse_pickle, select_files

_CHUNK = 1 << 20


class S3Source(Source):
    """Weights in an object store."""

    def fetch(self, request: FetchRequest) -> None:
        bucket, _, key = request.location.partition("/")
        if not key:
            raise BadSource(
                f"s3://{request.location} names no key or prefix",
                hint="The form is s3://bucket/prefix/ (a prefix ends with /).",
            )
        client = request.s3_client
        if client is None:
            raise BadSource(f"s3://{request.location} needs an S3 client, and none was given")
        with _store_errors_named(f"s3://{request.location}"):
            sizes = _list(client, bucket, key)
            if key.endswith("/"):
                names = select_files(sizes, f"s3://{request.location}")
                keys = {name: key + name for name in names}
            else:
                name = key.rsplit("/", 1)[-1]
                refuse_pickle(name, f"s3://{bucket}")
                if key not in sizes:
                    raise SourceNotFound(f"there is no object s3://{request.location}")
                sizes = {name: sizes[key]}
                keys = {name: key}
            total = sum(sizes[name] for name in keys)
            done = 0
            for name, object_key in keys.items():
                target = request.into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                body = client.get_object(Bucket=bucket, Key=object_key)["Body"]
                with target.open("wb") as out:
                    while chunk := body.read(_CHUNK):
                        out.write(chunk)
                        done += len(chunk)
                        request.progress("download", done, total)
                if target.stat().st_size != sizes[name]:
                    raise SourceUnavailable(f"s3://{bucket}/{object_key} broke off; try again")
                request.hashes.check(name, target)


def _list(client: S3Client, bucket: str, key: str) -> dict[str, int]:
    """Sizes by name below a prefix (by whole key if the key is an object's)."""
    sizes: dict[str, int] = {}
    token: dict[str, str] = {}
    strip = key if key.endswith("/") else ""
    while True:
        page = client.list_objects_v2(Bucket=bucket, Prefix=key, **token)
        for entry in page.get("Contents", []):
            name = str(entry["Key"]).removeprefix(strip)
            # Keys are free text: one that would leave the folder is no file of a model.
            if name and not name.endswith("/") and ".." not in name.split("/"):
                sizes[name] = int(entry["Size"])
        if not page.get("IsTruncated"):
            return sizes
        token = {"ContinuationToken": page["NextContinuationToken"]}


@contextmanager
def _store_errors_named(origin: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchBucket", "NoSuchKey", "404"):
            raise SourceNotFound(f"{origin}: {error}") from error
        raise SourceUnavailable(
            f"{origin}: {error}", hint="Check the keys and the bucket's policy."
        ) from error
    except (BotoCoreError, HTTPClientError) as error:
        raise SourceUnavailable(
            f"{origin} could not be read: {error}", hint="Check the endpoint and the keys."
        ) from error
