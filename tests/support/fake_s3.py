"""An S3 client over a dictionary."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO

from botocore.exceptions import ClientError, EndpointConnectionError


class FakeS3:
    """The calls of a boto3 S3 client that staging makes, over a dictionary."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.gets: list[str] = []
        self.puts: list[str] = []
        self.away = False

    def _bucket(self, name: str, operation: str) -> dict[str, bytes]:
        if self.away:
            raise EndpointConnectionError(endpoint_url="http://store")
        if name not in self.buckets:
            raise refusal("NoSuchBucket", 404, operation)
        return self.buckets[name]

    def _object(self, bucket: str, key: str, operation: str) -> bytes:
        found = self._bucket(bucket, operation)
        if key not in found:
            raise refusal("NoSuchKey", 404, operation)
        return found[key]

    def head_object(self, *, Bucket: str, Key: str):
        return described(self._object(Bucket, Key, "HeadObject"))

    def get_object(self, *, Bucket: str, Key: str):
        body = self._object(Bucket, Key, "GetObject")
        self.gets.append(Key)
        return {"Body": Body(body)}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: str) -> None:
        self._bucket(Bucket, "PutObject")[Key] = Body
        self.puts.append(Key)

    def upload_fileobj(self, file: BinaryIO, bucket: str, key: str) -> None:
        self.put_object(Bucket=bucket, Key=key, Body=file.read())

    def head_bucket(self, *, Bucket: str) -> None:
        self._bucket(Bucket, "HeadBucket")

    def create_bucket(self, *, Bucket: str, **_: object) -> None:
        self.buckets.setdefault(Bucket, {})

    def get_paginator(self, _name: str):
        return self

    def paginate(self, *, Bucket: str, Prefix: str):
        found = self._bucket(Bucket, "ListObjectsV2")
        for key in sorted(found):
            if key.startswith(Prefix):
                entry = described(found[key])
                yield {"Contents": [{"Key": key, "Size": len(found[key]), "ETag": entry["ETag"]}]}


class Body(io.BytesIO):
    def iter_chunks(self, size: int):
        while chunk := self.read(size):
            yield chunk


def described(body: bytes) -> dict[str, object]:
    etag = hashlib.md5(body).hexdigest()
    return {"ContentLength": len(body), "ETag": f'"{etag}"'}


def refusal(code: str, status: int, operation: str) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)
