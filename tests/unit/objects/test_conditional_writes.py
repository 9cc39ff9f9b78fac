"""If-Match and If-None-Match on writes: nothing is lost to a writer that did not see it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

STALE = '"00000000000000000000000000000000"'


def write(s3: Any, how: str, bucket: str, **condition: str) -> Any:
    """One of the ways to write ``k``, with the bytes ``new``."""
    where = {"Bucket": bucket, "Key": "k"}
    if how == "put":
        return s3.put_object(**where, Body=b"new", **condition)
    if how == "copy":
        s3.put_object(Bucket=bucket, Key="source", Body=b"new")
        return s3.copy_object(**where, CopySource={"Bucket": bucket, "Key": "source"}, **condition)
    upload = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"new")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    return s3.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload=parts, **condition
    )


def refusal(s3: Any, how: str, bucket: str, **condition: str) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        write(s3, how, bucket, **condition)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def read(s3: Any, bucket: str) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    return body


@pytest.mark.parametrize("how", ["put", "copy", "complete"])
def test_every_way_to_write_keeps_to_its_condition(s3: Any, bucket: str, how: str) -> None:
    assert refusal(s3, how, bucket, IfMatch=STALE) == ("NoSuchKey", 404)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]
    assert refusal(s3, how, bucket, IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refusal(s3, how, bucket, IfMatch=STALE) == ("PreconditionFailed", 412)
    assert read(s3, bucket) == b"old"
    write(s3, how, bucket, IfMatch=etag)
    assert read(s3, bucket) == b"new"
    s3.delete_object(Bucket=bucket, Key="k")
    write(s3, how, bucket, IfNoneMatch="*")
    assert read(s3, bucket) == b"new"


def test_a_condition_that_no_write_takes_is_refused(s3: Any, bucket: str) -> None:
    assert refusal(s3, "put", bucket, IfNoneMatch=STALE) == ("NotImplemented", 501)


def test_an_upload_that_was_refused_can_be_completed_still(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    refusal(s3, "complete", bucket, IfNoneMatch="*")
    (upload,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
    parts = [
        {name: part[name] for name in ("PartNumber", "ETag")}
        for part in s3.list_parts(**where)["Parts"]
    ]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert read(s3, bucket) == b"new"


def test_a_delete_keeps_what_was_replaced_meanwhile(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    etag = s3.put_object(**where, Body=b"new")["ETag"]
    with pytest.raises(ClientError) as stale:
        s3.delete_object(**where, IfMatch=STALE)
    assert stale.value.response["Error"]["Code"] == "PreconditionFailed"
    assert read(s3, bucket) == b"new"
    s3.delete_object(**where, IfMatch=etag)
    with pytest.raises(ClientError) as gone:
        s3.delete_object(**where, IfMatch="*")
    assert gone.value.response["Error"]["Code"] == "NoSuchKey"


@pytest.mark.parametrize("quiet", [False, True])
def test_delete_objects_has_a_condition_for_each_key(s3: Any, bucket: str, quiet: bool) -> None:
    etags = {k: s3.put_object(Bucket=bucket, Key=k, Body=k.encode())["ETag"] for k in "abc"}
    wanted = [{"Key": "a", "ETag": etags["a"]}, {"Key": "b", "ETag": STALE}, {"Key": "c"}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted, "Quiet": quiet})
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("b", "PreconditionFailed")]
    assert [entry["Key"] for entry in answer.get("Deleted", [])] == ([] if quiet else ["a", "c"])
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["b"]


@pytest.mark.parametrize("how", ["put", "complete"])
def test_of_many_writers_with_one_condition_one_wins(s3: Any, bucket: str, how: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]
    together = threading.Barrier(6)

    def contend(_: int) -> str:
        together.wait()
        try:
            write(s3, how, bucket, IfMatch=etag)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "won"

    with ThreadPoolExecutor(6) as pool:
        outcomes = sorted(pool.map(contend, range(6)))
    assert outcomes == ["PreconditionFailed"] * 5 + ["won"]
