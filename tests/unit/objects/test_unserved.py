"""What is not here is refused by name, and read as what nobody has set."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from .test_signatures import send

SSE_C = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}


def refusal(call: Any, **asked: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize(
    ("asked", "header"),
    [
        ({"Tagging": "a=b"}, "x-amz-tagging"),
        ({"ACL": "public-read"}, "x-amz-acl"),
        ({"GrantRead": "id=1"}, "x-amz-grant-read"),
        ({"StorageClass": "GLACIER"}, "x-amz-storage-class"),
        ({"WebsiteRedirectLocation": "/x"}, "x-amz-website-redirect-location"),
        ({"ObjectLockLegalHoldStatus": "ON"}, "x-amz-object-lock-legal-hold"),
        (
            {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": "2099-01-01"},
            "x-amz-object-lock-",
        ),
        (SSE_C, "x-amz-server-side-encryption-customer-"),
        ({"WriteOffsetBytes": 3}, "x-amz-write-offset-bytes"),
    ],
)
def test_a_header_that_would_not_be_obeyed(
    s3: Any, bucket: str, asked: dict[str, Any], header: str
) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    code, message = refusal(s3.put_object, **where, Body=b"x", **asked)
    assert (code, header in message) == ("NotImplemented", True)
    if "WriteOffsetBytes" not in asked:
        code, message = refusal(s3.create_multipart_upload, **where, **asked)
        assert (code, header in message) == ("NotImplemented", True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_object_is_not_read_with_a_key_that_it_was_not_written_with(
    s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"plain")
    assert refusal(s3.get_object, Bucket=bucket, Key="k", **SSE_C)[0] == "NotImplemented"


def test_headers_in_the_query_of_a_presigned_request(store: Any, bucket: str) -> None:
    answer = send(store, "PUT", f"/{bucket}/k?X-Amz-Acl=public-read", b"x")
    assert (answer.status, b"x-amz-acl" in answer.body) == (501, True)


@pytest.mark.parametrize(
    "asked",
    [
        {"ServerSideEncryption": "AES256"},
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key", "BucketKeyEnabled": True},
        {"StorageClass": "STANDARD"},
        {"ACL": "private"},
        {"ACL": "bucket-owner-full-control"},
        {"ObjectLockLegalHoldStatus": "OFF"},
    ],
)
def test_headers_that_ask_for_what_is_done_anyway(
    s3: Any, bucket: str, asked: dict[str, Any]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **asked)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_clients_of_any_region_make_buckets(s3: Any) -> None:
    for region in ("us-east-1", "eu-west-1"):
        s3.create_bucket(
            Bucket=f"of-{region}", CreateBucketConfiguration={"LocationConstraint": region}
        )
        s3.head_bucket(Bucket=f"of-{region}")


def test_what_a_bucket_says_of_features_that_nobody_has_set(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket}
    assert "Status" not in s3.get_bucket_versioning(**where)
    assert s3.get_bucket_request_payment(**where)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in s3.get_bucket_logging(**where)
    assert not s3.get_bucket_notification_configuration(**where).keys() - {"ResponseMetadata"}
    (grant,) = s3.get_bucket_acl(**where)["Grants"]
    assert grant["Permission"] == "FULL_CONTROL"
    assert grant["Grantee"]["Type"] == "CanonicalUser"
    for call, code in (
        (s3.get_bucket_tagging, "NoSuchTagSet"),
        (s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
        (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
        (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_public_access_block, "NoSuchPublicAccessBlockConfiguration"),
    ):
        assert refusal(call, **where)[0] == code
    assert refusal(s3.get_bucket_versioning, Bucket="no-such-bucket-here")[0] == "NoSuchBucket"


def test_what_an_object_says_of_them(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    assert refusal(s3.get_object_tagging, **where)[0] == "NoSuchKey"
    s3.put_object(**where, Body=b"x")
    assert s3.get_object_tagging(**where)["TagSet"] == []
    assert s3.get_object_acl(**where)["Owner"]["ID"]


def test_to_set_them_is_refused(s3: Any, bucket: str) -> None:
    versioned = {"VersioningConfiguration": {"Status": "Enabled"}}
    code, message = refusal(s3.put_bucket_versioning, Bucket=bucket, **versioned)
    assert (code, "versioning" in message) == ("NotImplemented", True)
    tags = {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    assert refusal(s3.put_object_tagging, Bucket=bucket, Key="k", **tags)[0] == "NotImplemented"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"data"


def test_every_object_is_the_only_version_of_itself(s3: Any, bucket: str) -> None:
    keys = ["a", "b/1", "b/2", "ç &<"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"xy")
    pages = s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 2}
    )
    versions = [version for page in pages for version in page["Versions"]]
    assert [version["Key"] for version in versions] == keys
    assert {(v["VersionId"], v["IsLatest"], v["Size"]) for v in versions} == {("null", True, 2)}
    folded = s3.list_object_versions(Bucket=bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in folded["CommonPrefixes"]] == ["b/"]


def test_all_versions_of_a_bucket_can_be_deleted(store: Any, s3: Any, bucket: str) -> None:
    """As tools empty a bucket before they delete it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    keys = {"aws_access_key_id": "AKIDSTORE", "aws_secret_access_key": "store-secret"}
    resource = boto3.resource("s3", endpoint_url=store.url, region_name="us-east-1", **keys)
    resource.Bucket(bucket).object_versions.delete()
    resource.Bucket(bucket).delete()


def test_a_form_is_told_to_use_put(s3: Any, store: Any, bucket: str) -> None:
    form = s3.generate_presigned_post(bucket, "k")
    fields = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form["fields"].items()
    )
    body = f'{fields}--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(form["url"], body.encode(), headers))
    assert refused.value.code == 501
    assert b"Presign a PUT" in refused.value.read()


def test_a_bucket_has_no_owner_but_one(s3: Any) -> None:
    s3.create_bucket(Bucket="enforced", ObjectOwnership="BucketOwnerEnforced")
    for other in ("ObjectWriter", "BucketOwnerPreferred"):
        code, message = refusal(s3.create_bucket, Bucket="written", ObjectOwnership=other)
        assert (code, "x-amz-object-ownership" in message) == ("NotImplemented", True)
    assert refusal(s3.head_bucket, Bucket="written")[0] == "404"


def test_a_completed_upload_tells_its_url(s3: Any, store: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "a/b c"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x")
    done = s3.complete_multipart_upload(
        **where,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert done["Location"] == f"{store.url}/{bucket}/a/b%20c"
