"""Reading one part of an object, what an object tells of itself, and versions, which are none."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from .test_signatures import send

FIRST = bytes(5 * 1024 * 1024)


def upload(s3: Any, bucket: str, *bodies: bytes) -> dict[str, str]:
    """A multipart object; returns what names it."""
    where = {"Bucket": bucket, "Key": "parts"}
    upload_id = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": n,
            "ETag": s3.upload_part(**where, UploadId=upload_id, PartNumber=n, Body=body)["ETag"],
        }
        for n, body in enumerate(bodies, 1)
    ]
    s3.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": parts})
    return where


def refusal(call: Any, **asked: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("copied", [False, True])
def test_a_part_comes_alone(s3: Any, bucket: str, copied: bool) -> None:
    where = upload(s3, bucket, FIRST, b"second")
    if copied:
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=where)
        where["Key"] = "copy"
    got = s3.get_object(**where, PartNumber=2)
    assert (got["Body"].read(), got["ContentLength"]) == (b"second", 6)
    assert got["ContentRange"] == "bytes 5242880-5242885/5242886"
    assert got["PartsCount"] == 2
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    head = s3.head_object(**where, PartNumber=1)
    assert (head["ContentLength"], head["PartsCount"]) == (5 * 1024 * 1024, 2)
    assert refusal(s3.get_object, **where, PartNumber=3) == ("InvalidPartNumber", 416)
    assert refusal(s3.get_object, **where, PartNumber=0) == ("InvalidArgument", 400)
    both = {"PartNumber": 1, "Range": "bytes=0-1"}
    assert refusal(s3.get_object, **where, **both) == ("InvalidRequest", 400)


def test_a_last_part_may_be_empty(s3: Any, bucket: str) -> None:
    where = upload(s3, bucket, FIRST, b"")
    assert s3.get_object(**where, PartNumber=1)["PartsCount"] == 2
    assert s3.get_object(**where, PartNumber=2)["Body"].read() == b""


def test_an_object_that_came_whole_is_its_first_part(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    s3.put_object(**where, Body=b"whole")
    got = s3.get_object(**where, PartNumber=1)
    assert (got["Body"].read(), got["ContentRange"]) == (b"whole", "bytes 0-4/5")
    assert "PartsCount" not in got
    assert refusal(s3.get_object, **where, PartNumber=2) == ("InvalidPartNumber", 416)


def test_attributes(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    put = s3.put_object(**where, Body=b"abc", ChecksumAlgorithm="SHA256")
    every = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    told = s3.get_object_attributes(**where, ObjectAttributes=every)
    assert told["ETag"] == put["ETag"].strip('"')
    assert told["Checksum"]["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert (told["ObjectSize"], told["StorageClass"]) == (3, "STANDARD")
    assert told["LastModified"] == s3.head_object(**where)["LastModified"]
    assert "ObjectParts" not in told
    parts = s3.get_object_attributes(
        **upload(s3, bucket, FIRST, b"x"), ObjectAttributes=["ObjectParts"]
    )
    assert parts["ObjectParts"]["TotalPartsCount"] == 2
    assert "ETag" not in parts
    unknown = refusal(s3.get_object_attributes, **where, ObjectAttributes=["Colour"])
    assert unknown == ("InvalidArgument", 400)


def test_there_is_one_version(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    s3.put_object(**where, Body=b"current")
    assert s3.get_object(**where, VersionId="null")["Body"].read() == b"current"
    other = where | {"VersionId": "abcd"}
    assert refusal(s3.get_object, **other) == ("InvalidArgument", 400)
    assert refusal(s3.head_object, **other) == ("400", 400)
    assert refusal(s3.delete_object, **other) == ("InvalidArgument", 400)
    copy = {"Bucket": bucket, "Key": "copy", "CopySource": other}
    assert refusal(s3.copy_object, **copy) == ("InvalidArgument", 400)
    assert refusal(s3.get_object_tagging, **other) == ("InvalidArgument", 400)
    assert refusal(s3.get_object_acl, **other) == ("InvalidArgument", 400)
    assert s3.get_object_tagging(**where, VersionId="null")["TagSet"] == []
    assert s3.get_object(**where)["Body"].read() == b"current"
    s3.copy_object(**copy | {"CopySource": where | {"VersionId": "null"}})
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": "null"}]})
    s3.delete_object(Bucket=bucket, Key="copy", VersionId="null")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_deletion_on_terms_that_are_not_looked_at_is_refused(
    store: Any, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    terms = b"<Delete><Object><Key>k</Key><Size>7</Size></Object></Delete>"
    answer = send(store, "POST", f"/{bucket}?delete", terms)
    assert answer.status == 200
    assert b"<Error><Key>k</Key><Code>NotImplemented</Code><Message>Size of an" in answer.body
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_an_entry_that_is_refused_keeps_no_other(s3: Any, bucket: str, quiet: bool) -> None:
    for key in "abc":
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    wanted = [{"Key": "a"}, {"Key": "b", "VersionId": "abcd"}, {"Key": "c", "VersionId": "null"}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted, "Quiet": quiet})
    (error,) = answer["Errors"]
    assert (error["Key"], error["VersionId"], error["Code"]) == ("b", "abcd", "InvalidArgument")
    assert [entry["Key"] for entry in answer.get("Deleted", [])] == ([] if quiet else ["a", "c"])
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["b"]
