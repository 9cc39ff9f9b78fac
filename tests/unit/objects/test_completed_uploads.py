"""What a client says of the whole of an upload in parts, and what it is told of it."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from .conftest import RunningStore
from .test_signatures import send

FIRST = b"a" * 5 * 1024 * 1024
CRC32 = base64.b64encode(zlib.crc32(FIRST + b"end").to_bytes(4, "big")).decode()


class InParts:
    """An upload of ``FIRST`` and three bytes more, to be completed."""

    def __init__(self, s3: Any, bucket: str, key: str = "k") -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self.upload = s3.create_multipart_upload(**self._where)["UploadId"]
        self.parts = [
            {"PartNumber": number, "ETag": self._part(number, body)["ETag"]}
            for number, body in enumerate((FIRST, b"end"), 1)
        ]

    def _part(self, number: int, body: bytes) -> Any:
        return self._s3.upload_part(
            **self._where, UploadId=self.upload, PartNumber=number, Body=body
        )

    def complete(self, **said: Any) -> Any:
        parts = {"Parts": self.parts}
        return self._s3.complete_multipart_upload(
            **self._where, UploadId=self.upload, MultipartUpload=parts, **said
        )

    def refusal(self, **said: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as refused:
            self.complete(**said)
        error = refused.value.response["Error"]
        return error["Code"], error["Message"]


def test_the_size_of_the_whole_is_held_to(s3: Any, bucket: str) -> None:
    upload = InParts(s3, bucket)
    code, message = upload.refusal(MpuObjectSize=99)
    assert (code, "x-amz-mp-object-size" in message) == ("InvalidRequest", True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    upload.complete(MpuObjectSize=len(FIRST) + 3)
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == len(FIRST) + 3


def test_a_checksum_of_the_whole_is_verified(s3: Any, bucket: str) -> None:
    upload = InParts(s3, bucket)
    code, message = upload.refusal(ChecksumCRC32="AAAAAA==", ChecksumType="FULL_OBJECT")
    assert (code, "x-amz-checksum-crc32" in message) == ("BadDigest", True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    upload.complete(ChecksumCRC32=CRC32, ChecksumType="FULL_OBJECT")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == FIRST + b"end"


@pytest.mark.parametrize(
    ("said", "header"),
    [
        ({"ChecksumCRC32": "AAAAAA==-2"}, "x-amz-checksum-crc32"),
        ({"ChecksumCRC32": CRC32, "ChecksumType": "COMPOSITE"}, "x-amz-checksum-crc32"),
        ({"ChecksumSHA256": "A" * 43 + "="}, "x-amz-checksum-sha256"),
    ],
)
def test_a_checksum_of_checksums_is_refused_by_name(
    s3: Any, bucket: str, said: dict[str, str], header: str
) -> None:
    upload = InParts(s3, bucket)
    code, message = upload.refusal(**said)
    assert (code, header in message) == ("NotImplemented", True)
    upload.complete()


def test_what_clients_send_of_themselves_passes(s3: Any, bucket: str) -> None:
    """boto3 completes with the checksums of the parts, and with the user's of the whole."""
    config = TransferConfig(multipart_threshold=1, multipart_chunksize=len(FIRST))
    for said in ({}, {"ChecksumAlgorithm": "SHA256"}, {"ChecksumCRC32": CRC32}):
        body = io.BytesIO(FIRST + b"end")
        s3.upload_fileobj(body, bucket, "k", ExtraArgs=said, Config=config)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == FIRST + b"end"


def completed(store: RunningStore, s3: Any, bucket: str, host: str, proto: str) -> bytes:
    upload = InParts(s3, bucket)
    parts = "".join(
        f"<Part><PartNumber>{part['PartNumber']}</PartNumber><ETag>{part['ETag']}</ETag></Part>"
        for part in upload.parts
    )
    document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    path = f"/{bucket}/k?uploadId={upload.upload}"
    said = {"X-Forwarded-Proto": proto}
    answer = send(store, "POST", path, document, host=host, headers=said)
    assert answer.status == 200
    return answer.body


@pytest.mark.parametrize(
    ("proto", "scheme"), [("https", "https"), ("https, http", "https"), ("http", "http")]
)
def test_the_url_behind_a_proxy_is_the_one_outside(
    store: RunningStore, s3: Any, bucket: str, proto: str, scheme: str
) -> None:
    location = f"<Location>{scheme}://models.example.org/{bucket}/k</Location>"
    assert location.encode() in completed(store, s3, bucket, "models.example.org", proto)


def test_no_url_names_an_empty_host(store: RunningStore, s3: Any, bucket: str) -> None:
    location = f"<Location>/{bucket}/k</Location>"
    assert location.encode() in completed(store, s3, bucket, " ", "http")
