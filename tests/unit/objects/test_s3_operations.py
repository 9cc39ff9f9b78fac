"""The calls that AWS's SDKs make, by an unmodified boto3 client."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError


def _code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_buckets(s3: Any) -> None:
    with pytest.raises(ClientError) as missing:
        s3.head_bucket(Bucket="not-there-yet")
    assert _code(missing) == ("404", 404)
    s3.create_bucket(Bucket="not-there-yet")
    s3.create_bucket(Bucket="not-there-yet")
    s3.head_bucket(Bucket="not-there-yet")
    assert s3.get_bucket_location(Bucket="not-there-yet")["LocationConstraint"] is None
    listed = {entry["Name"]: entry["CreationDate"] for entry in s3.list_buckets()["Buckets"]}
    assert listed["not-there-yet"].year > 2020
    s3.put_object(Bucket="not-there-yet", Key="k", Body=b"x")
    with pytest.raises(ClientError) as full:
        s3.delete_bucket(Bucket="not-there-yet")
    assert _code(full) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket="not-there-yet", Key="k")
    s3.delete_bucket(Bucket="not-there-yet")
    with pytest.raises(ClientError) as gone:
        s3.put_object(Bucket="not-there-yet", Key="k", Body=b"x")
    assert _code(gone) == ("NoSuchBucket", 404)


def test_bad_bucket_name_is_refused(s3: Any) -> None:
    with pytest.raises(ClientError) as refused:
        s3.create_bucket(Bucket="Has_Upper")
    assert _code(refused) == ("InvalidBucketName", 400)


@pytest.mark.parametrize("given", [{}, {"ContentType": ""}])
def test_an_object_without_a_type_has_the_usual_one(
    s3: Any, bucket: str, given: dict[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **given)
    assert s3.get_object(Bucket=bucket, Key="k")["ContentType"] == "binary/octet-stream"


def test_object_keeps_bytes_type_and_metadata(s3: Any, bucket: str) -> None:
    body = b"hello " * 1000
    put = s3.put_object(
        Bucket=bucket,
        Key="a/b.json",
        Body=body,
        ContentType="application/x-test",
        CacheControl="no-cache",
        ContentEncoding="identity",
        Metadata={"owner": "me", "step": "3"},
    )
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="a/b.json")
    assert got["Body"].read() == body
    head = s3.head_object(Bucket=bucket, Key="a/b.json")
    for answer in (got, head):
        assert answer["ContentType"] == "application/x-test"
        assert answer["CacheControl"] == "no-cache"
        assert answer["ContentEncoding"] == "identity"
        assert answer["Metadata"] == {"owner": "me", "step": "3"}
        assert answer["ContentLength"] == len(body)
        assert answer["ETag"] == put["ETag"]


def test_empty_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    assert s3.head_object(Bucket=bucket, Key="empty")["ContentLength"] == 0


def test_missing_objects(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as head:
        s3.head_object(Bucket=bucket, Key="nothing")
    assert _code(head) == ("404", 404)
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="nothing")
    s3.delete_object(Bucket=bucket, Key="nothing")


@pytest.mark.parametrize(
    "key",
    [
        "plain",
        "with space/and+plus",
        "percent%20literal",
        "ünï/çødé/日本",
        "trailing/",
        "double//slash",
        "../up/../and/./down",
        "quote'\"&<>",
        "=?#;:@,$~!*()",
        "x" * 1024,
    ],
)
def test_odd_keys_come_back_as_they_were(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_too_long_key(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="x" * 1025, Body=b"")
    assert _code(refused) == ("KeyTooLongError", 400)


def test_a_key_may_be_the_folder_of_another(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="model", Body=b"file")
    s3.put_object(Bucket=bucket, Key="model/weights", Body=b"child")
    assert s3.get_object(Bucket=bucket, Key="model")["Body"].read() == b"file"
    assert s3.get_object(Bucket=bucket, Key="model/weights")["Body"].read() == b"child"
    s3.delete_object(Bucket=bucket, Key="model")
    assert s3.get_object(Bucket=bucket, Key="model/weights")["Body"].read() == b"child"


def test_ranges(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="r", Body=bytes(range(100)))

    def read(span: str) -> tuple[bytes, str]:
        got = s3.get_object(Bucket=bucket, Key="r", Range=span)
        return got["Body"].read(), got["ContentRange"]

    assert read("bytes=10-19") == (bytes(range(10, 20)), "bytes 10-19/100")
    assert read("bytes=90-") == (bytes(range(90, 100)), "bytes 90-99/100")
    assert read("bytes=-5") == (bytes(range(95, 100)), "bytes 95-99/100")
    assert read("bytes=98-500") == (bytes([98, 99]), "bytes 98-99/100")
    with pytest.raises(ClientError) as outside:
        read("bytes=100-")
    assert _code(outside) == ("InvalidRange", 416)
    for backwards in ("bytes=5-2", "bytes=500-200"):
        whole = s3.get_object(Bucket=bucket, Key="r", Range=backwards)
        assert whole["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert "ContentRange" not in whole
        assert whole["Body"].read() == bytes(range(100))
    # A copy of what was not asked for would stay: there the range is refused.
    copy = {"Bucket": bucket, "Key": "copied"}
    with pytest.raises(ClientError) as refused:
        s3.upload_part_copy(
            **copy,
            UploadId=s3.create_multipart_upload(**copy)["UploadId"],
            PartNumber=1,
            CopySource={"Bucket": bucket, "Key": "r"},
            CopySourceRange="bytes=5-2",
        )
    assert _code(refused) == ("InvalidArgument", 400)


def test_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="c", Body=b"1")["ETag"]
    with pytest.raises(ClientError) as same:
        s3.get_object(Bucket=bucket, Key="c", IfNoneMatch=etag)
    assert _code(same) == ("304", 304)
    with pytest.raises(ClientError) as other:
        s3.get_object(Bucket=bucket, Key="c", IfMatch='"0"')
    assert _code(other) == ("PreconditionFailed", 412)
    with pytest.raises(ClientError) as taken:
        s3.put_object(Bucket=bucket, Key="c", Body=b"2", IfNoneMatch="*")
    assert _code(taken) == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == b"1"


def test_copy(s3: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket, Key="from me+you", Body=b"data", ContentType="text/x", Metadata={"a": "1"}
    )
    source = {"Bucket": bucket, "Key": "from me+you"}
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source)
    s3.copy_object(
        Bucket=bucket,
        Key="new-meta",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
        ContentType="text/y",
    )
    s3.delete_object(Bucket=bucket, Key="from me+you")
    kept, replaced = (s3.get_object(Bucket=bucket, Key=key) for key in ("to", "new-meta"))
    assert (kept["Body"].read(), kept["ContentType"], kept["Metadata"]) == (
        b"data",
        "text/x",
        {"a": "1"},
    )
    assert (replaced["Body"].read(), replaced["ContentType"]) == (b"data", "text/y")
    assert replaced["Metadata"] == {"b": "2"}
    with pytest.raises(ClientError) as missing:
        s3.copy_object(Bucket=bucket, Key="to", CopySource=source)
    assert _code(missing) == ("NoSuchKey", 404)


def test_delete_objects(s3: Any, bucket: str) -> None:
    for key in ("d1", "d 2&<", "kept"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": k} for k in ("d1", "d 2&<", "never")]}
    )
    assert [entry["Key"] for entry in answer["Deleted"]] == ["d1", "d 2&<", "never"]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["kept"]


def test_multipart_upload(s3: Any, bucket: str) -> None:
    body = bytes(range(256)) * 40_000
    config = boto3.s3.transfer.TransferConfig(
        multipart_threshold=1, multipart_chunksize=5 * 1024 * 1024
    )
    s3.upload_fileobj(
        io.BytesIO(body), bucket, "big", Config=config, ExtraArgs={"ContentType": "text/big"}
    )
    head = s3.head_object(Bucket=bucket, Key="big")
    assert head["ContentType"] == "text/big"
    assert head["ETag"].endswith('-2"')
    out = io.BytesIO()
    s3.download_fileobj(bucket, "big", out, Config=config)
    assert out.getvalue() == body
    middle = s3.get_object(Bucket=bucket, Key="big", Range="bytes=5242870-5242890")
    assert middle["Body"].read() == body[5242870:5242891]
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "big-copy", Config=config)
    assert s3.get_object(Bucket=bucket, Key="big-copy")["Body"].read() == body


def test_multipart_upload_by_hand(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="h")["UploadId"]
    one = s3.upload_part(Bucket=bucket, Key="h", UploadId=upload, PartNumber=1, Body=b"old")
    first = b"one" * 1_747_627  # The least that is not the last part: 5 MiB.
    one = s3.upload_part(Bucket=bucket, Key="h", UploadId=upload, PartNumber=1, Body=first)
    two = s3.upload_part(Bucket=bucket, Key="h", UploadId=upload, PartNumber=2, Body=b"two")
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    listed = s3.list_parts(Bucket=bucket, Key="h", UploadId=upload)["Parts"]
    assert [part["PartNumber"] for part in listed] == [1, 2]
    parts = [
        {"PartNumber": 1, "ETag": one["ETag"]},
        {"PartNumber": 2, "ETag": two["ETag"]},
    ]
    with pytest.raises(ClientError) as order:
        s3.complete_multipart_upload(
            Bucket=bucket, Key="h", UploadId=upload, MultipartUpload={"Parts": parts[::-1]}
        )
    assert _code(order) == ("InvalidPartOrder", 400)
    s3.complete_multipart_upload(
        Bucket=bucket, Key="h", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert s3.get_object(Bucket=bucket, Key="h")["Body"].read() == first + b"two"
    other = s3.create_multipart_upload(Bucket=bucket, Key="h")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key="h", UploadId=other)
    with pytest.raises(ClientError) as ended:
        s3.upload_part(Bucket=bucket, Key="h", UploadId=other, PartNumber=1, Body=b"x")
    assert _code(ended) == ("NoSuchUpload", 404)


def test_small_parts_must_be_the_last(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "small"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in ((1, bytes(5 * 1024 * 1024 - 1)), (2, b"two"))
    ]
    with pytest.raises(ClientError) as small:
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    assert _code(small) == ("EntityTooSmall", 400)
    assert "Part 1 has 5242879 bytes" in small.value.response["Error"]["Message"]
    # The upload is still there, and the last part may be as small as it likes.
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts[1:]})
    assert s3.get_object(**where)["Body"].read() == b"two"


def test_expected_bucket_owner(s3: Any, bucket: str) -> None:
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="123456789012")
    with pytest.raises(ClientError) as stranger:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="999999999999")
    assert _code(stranger) == ("403", 403)


def test_expected_owner_of_the_source_of_a_copy(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    copy = {"Bucket": bucket, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "k"}}
    with pytest.raises(ClientError) as refused:
        s3.copy_object(**copy, ExpectedSourceBucketOwner="999999999999")
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    s3.copy_object(**copy, ExpectedSourceBucketOwner="123456789012")


def test_unserved_sub_resource_never_touches_the_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    with pytest.raises(ClientError) as refused:
        s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert _code(refused) == ("NotImplemented", 501)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"data"


def test_waiter_and_old_listing(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="w", Body=b"")
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="w")
    assert [entry["Key"] for entry in s3.list_objects(Bucket=bucket)["Contents"]] == ["w"]


def test_checksum_algorithms(s3: Any, bucket: str) -> None:
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put = s3.put_object(Bucket=bucket, Key="s", Body=b"abc", ChecksumAlgorithm=algorithm)
        got = s3.get_object(Bucket=bucket, Key="s", ChecksumMode="ENABLED")
        name = f"Checksum{algorithm}"
        assert got[name] == put[name]
        assert got["Body"].read() == b"abc"


def test_required_only_client(store: Any, bucket: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id="AKIDSTORE",
        aws_secret_access_key="store-secret",
        config=Config(request_checksum_calculation="when_required"),
    )
    client.put_object(Bucket=bucket, Key="plain", Body=b"no checksum")
    assert client.get_object(Bucket=bucket, Key="plain")["Body"].read() == b"no checksum"
