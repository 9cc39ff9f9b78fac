"""What passes through: the control plane's protocols and S3."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from aiohttp import web
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

from ridgeline_service.connections import ConnectionLimits
from ridgeline_service.gateway.routing import Limits

from .conftest import KEY, World


def test_control_plane_is_told_who_calls(world: World) -> None:
    world.start_gateway()
    request_headers = {"X-Ridgeline-Principal": "root", "X-Ridgeline-Internal": "guess"}
    sagemaker = world.client("sagemaker")

    def forge(request: Any, **_: Any) -> None:
        request.headers.update(request_headers)

    sagemaker.meta.events.register("before-send.sagemaker", forge)
    sagemaker.create_model(
        ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/R", PrimaryContainer={}
    )
    (seen,) = world.control.seen
    assert seen.headers["X-Amz-Target"] == "SageMaker.CreateModel"
    assert b'"ModelName": "m"' in seen.body
    assert seen.headers["X-Ridgeline-Internal"] == "internal"
    assert seen.headers["X-Ridgeline-Principal"] == KEY.access_key_id
    assert seen.headers["X-Ridgeline-Service"] == "sagemaker"


QUERY = ("sts", "iam")
INVOKED = {"EndpointName": "e", "Body": b""}


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("sts", "get_caller_identity", {}),
        ("iam", "get_role", {"RoleName": "R"}),
        ("logs", "describe_log_streams", {"logGroupName": "g"}),
        ("cloudwatch", "list_metrics", {}),
        ("application-autoscaling", "describe_scalable_targets", {"ServiceNamespace": "ec2"}),
        ("sagemaker-featurestore-runtime", "get_record", {}),
    ],
)
def test_every_service_reaches_the_control_plane(
    world: World, service: str, call: str, arguments: dict[str, Any]
) -> None:
    if service == "sagemaker-featurestore-runtime":
        arguments = {"FeatureGroupName": "f", "RecordIdentifierValueAsString": "1"}

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=418, text="<ErrorResponse/>" if service in QUERY else "{}")

    world.control.handler = refuse
    world.start_gateway()
    with pytest.raises(ClientError) as answered:
        getattr(world.client(service), call)(**arguments)
    assert answered.value.response["ResponseMetadata"]["HTTPStatusCode"] == 418
    signing_names = {
        "cloudwatch": "monitoring",
        "sagemaker-featurestore-runtime": "sagemaker",
    }
    (seen,) = world.control.seen
    assert seen.headers["X-Ridgeline-Service"] == signing_names.get(service, service)


@pytest.mark.parametrize(
    ("service", "call"),
    [
        ("sagemaker", "list_models"),
        ("sts", "get_caller_identity"),
        ("cloudwatch", "list_metrics"),
        ("logs", "describe_log_groups"),
    ],
)
def test_refusals_speak_the_protocol_of_the_service(world: World, service: str, call: str) -> None:
    world.start_gateway()
    with pytest.raises(ClientError) as refused:
        getattr(world.client(service, aws_access_key_id="AKIDNOBODY"), call)()
    code = "InvalidClientTokenId" if service == "sts" else "UnrecognizedClientException"
    assert refused.value.response["Error"]["Code"] == code
    assert "AKIDNOBODY" in refused.value.response["Error"]["Message"]
    assert not world.control.seen


@pytest.mark.parametrize(
    ("signed_for", "service", "call", "arguments", "asked"),
    [
        ("s3", "sagemaker", "list_models", {}, "SageMaker.ListModels"),
        ("s3", "sts", "get_caller_identity", {}, "GetCallerIdentity"),
        ("s3", "cloudwatch", "list_metrics", {}, "ListMetrics"),
        ("s3", "sagemaker-runtime", "invoke_endpoint", INVOKED, "'sagemaker'"),
        ("logs", "sagemaker-runtime", "invoke_endpoint", INVOKED, "'sagemaker'"),
    ],
)
def test_signed_for_another_service(
    world: World, signed_for: str, service: str, call: str, arguments: dict[str, Any], asked: str
) -> None:
    """The refusal is one that the client of the operation's own service can read."""

    def sign(context: dict[str, Any], **_: Any) -> None:
        context.setdefault("signing", {})["signing_name"] = signed_for

    world.start_gateway()
    client = world.client(service)
    client.meta.events.register("before-call", sign)
    with pytest.raises(ClientError) as refused:
        getattr(client, call)(**arguments)
    error = refused.value.response["Error"]
    assert error["Code"] == "InvalidSignatureException"
    assert repr(signed_for) in error["Message"]
    assert asked in error["Message"]
    assert not world.control.seen


def test_control_plane_that_dies_in_mid_call(world: World) -> None:
    async def die(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    world.control.handler = die
    world.start_gateway()
    sagemaker = world.client("sagemaker")
    for call, asked in ((sagemaker.list_models, 2), (sagemaker.delete_model, 1)):
        world.control.seen.clear()
        arguments = {} if asked == 2 else {"ModelName": "m"}
        with pytest.raises(ClientError) as lost:
            call(**arguments)
        assert lost.value.response["Error"]["Code"] == "ServiceUnavailable"
        assert lost.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert len(world.control.seen) == asked


async def hang(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


def unavailable(error: pytest.ExceptionInfo[ClientError]) -> str:
    """The message of a typed 503 that says when to come back."""
    response = error.value.response
    assert response["Error"]["Code"] == "ServiceUnavailable"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert int(response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) >= 1
    return str(response["Error"]["Message"])


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("sagemaker", "list_models", {}),
        ("sagemaker", "delete_model", {"ModelName": "m"}),
        ("sts", "get_caller_identity", {}),
        ("cloudwatch", "list_metrics", {}),
    ],
)
def test_control_plane_that_hangs(
    world: World, service: str, call: str, arguments: dict[str, Any]
) -> None:
    world.control.handler = hang
    world.start_gateway(Limits(control_wait_s=0.3))
    with pytest.raises(ClientError) as waited:
        getattr(world.client(service), call)(**arguments)
    assert unavailable(waited) == (
        "The control plane does not answer. Running endpoints go on; see logs/control.log in the "
        "data directory."
    )
    assert len(world.control.seen) == 1


def test_control_plane_that_never_accepts(world: World) -> None:
    """Its socket is open, as the supervisor keeps it, and nobody takes what comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        world.control.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        world.start_gateway(Limits(control_wait_s=0.05))
        sagemaker = world.client("sagemaker")
        large = "x" * 8 * 1024 * 1024  # More than the socket's buffers hold.
        for call, arguments in (
            (sagemaker.list_models, {}),
            (sagemaker.delete_model, {"ModelName": large}),
        ):
            with pytest.raises(ClientError) as waited:
                call(**arguments)
            assert "logs/control.log" in unavailable(waited)
        assert urllib.request.urlopen(f"{world.url}/healthz").status == 200


def test_api_takes_a_bearer_key_or_a_signature(world: World) -> None:
    world.start_gateway()
    request = urllib.request.Request(
        f"{world.url}/api/zoo?q=x", headers={"Authorization": "Bearer rl-test-bearer"}
    )
    assert urllib.request.urlopen(request).status == 200
    (seen,) = world.control.seen
    assert (seen.path, seen.headers["X-Ridgeline-Service"]) == ("/api/zoo?q=x", "api")
    assert seen.headers["X-Ridgeline-Principal"] == "key-1"
    request.headers["Authorization"] = "Bearer wrong"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 401


def test_s3_through_the_gateway(world: World) -> None:
    world.start_gateway()
    s3 = world.client("s3")
    body = bytes(range(256)) * 50_000
    s3.create_bucket(Bucket="api")
    s3.create_bucket(Bucket="endpoints")
    config = boto3.s3.transfer.TransferConfig(
        multipart_threshold=5 * 1024 * 1024, multipart_chunksize=5 * 1024 * 1024
    )
    s3.upload_fileobj(io.BytesIO(body), "endpoints", "x/invocations", Config=config)
    assert s3.get_object(Bucket="endpoints", Key="x/invocations")["Body"].read() == body
    assert s3.head_object(Bucket="endpoints", Key="x/invocations")["ContentLength"] == len(body)
    s3.put_object(Bucket="api", Key="info", Body=b"not the API")
    s3.put_object(Bucket="api", Key="sp ace/%2F+", Body=b"odd")
    assert s3.get_object(Bucket="api", Key="info")["Body"].read() == b"not the API"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="api")["Contents"]]
    assert keys == ["info", "sp ace/%2F+"]
    with pytest.raises(ClientError) as missing:
        s3.head_object(Bucket="api", Key="nothing")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    with pytest.raises(ClientError) as early:
        s3.put_object(Bucket="never-made", Key="k", Body=body)
    assert early.value.response["Error"]["Code"] == "NoSuchBucket"
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["api", "endpoints"]
    for version in ("s3", "s3v4"):
        signer = world.client("s3", config=Config(signature_version=version))
        link = signer.generate_presigned_url("get_object", Params={"Bucket": "api", "Key": "info"})
        assert ("X-Amz-Signature" in link) == (version == "s3v4")
        assert urllib.request.urlopen(link).read() == b"not the API"
    with pytest.raises(ClientError) as wrong:
        world.client("s3", aws_secret_access_key="wrong").list_buckets()
    assert wrong.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


def test_headers_that_are_not_ascii_pass(world: World) -> None:
    """The two ways in which text is written there: Latin-1, and UTF-8."""
    world.start_gateway()
    s3 = world.client("s3", config=Config(signature_version="s3v4"))
    s3.create_bucket(Bucket="bucket")
    keys = ReadOnlyCredentials(KEY.access_key_id, KEY.secret_access_key, None)
    upload = AWSRequest("PUT", f"{world.url}/bucket/k?x-amz-meta-k=%E2%98%83")
    S3SigV4QueryAuth(keys, "s3", "us-east-1", expires=60).add_auth(upload)
    with urllib.request.urlopen(urllib.request.Request(upload.url, b"v", method="PUT")) as put:
        assert put.status == 200
    named = 'attachment; filename="é.txt"'
    got = s3.get_object(Bucket="bucket", Key="k", ResponseContentDisposition=named)
    assert got["Body"].read() == b"v"
    assert got["ContentDisposition"] == named
    assert got["Metadata"]["k"].encode("latin-1").decode() == "\N{SNOWMAN}"


@pytest.mark.parametrize("text", ["é", "\N{SNOWMAN}", "Größe 日本"])
def test_headers_that_are_not_ascii_are_stored_as_they_came(world: World, text: str) -> None:
    world.start_gateway()
    s3 = world.client("s3", config=Config(signature_version="s3v4"))
    s3.create_bucket(Bucket="bucket")
    link = s3.generate_presigned_url("put_object", Params={"Bucket": "bucket", "Key": "k"})
    upload = urllib.request.Request(link, b"v", method="PUT")
    upload.add_header("Content-Disposition", text.encode().decode("latin-1"))
    with urllib.request.urlopen(upload) as put:
        assert put.status == 200
    link = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"})
    with urllib.request.urlopen(link) as got:
        assert got.headers["Content-Disposition"].encode("latin-1").decode() == text


def test_uploads_are_not_buffered(world: World) -> None:
    """The store sees the first bytes while the client still holds back the last ones."""
    arrived = threading.Event()

    async def store(request: web.Request) -> web.Response:
        await request.content.readany()
        arrived.set()
        await request.read()
        return web.Response(headers={"ETag": '"x"'})

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 512 * 1024:
                assert arrived.wait(10)
            return super().read(size)

    fake = world.replica(store)
    fake.buffered = False
    world.store_url = fake.url
    world.start_gateway()
    request = urllib.request.Request(
        f"{world.url}/bucket/key",
        data=Slow(b"x" * 1024 * 1024),
        method="PUT",
        headers={"Content-Length": str(1024 * 1024)},
    )
    assert urllib.request.urlopen(request).status == 200


def test_object_store_that_hangs(world: World) -> None:
    fake = world.replica(hang)
    world.store_url = fake.url
    world.start_gateway(Limits(store_wait_s=0.05))
    s3 = world.client("s3")
    for call, arguments in ((s3.get_object, {}), (s3.put_object, {"Body": b"x" * 1_000_000})):
        with pytest.raises(ClientError) as waited:
            call(Bucket="bucket", Key="k", **arguments)
        assert "object store does not answer" in unavailable(waited)
    assert len(fake.seen[1].body) >= 1_000_000


def test_object_store_that_takes_no_body(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        world.store_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        world.start_gateway(Limits(store_wait_s=0.05))
        with pytest.raises(ClientError) as waited:
            world.client("s3").put_object(Bucket="b", Key="k", Body=b"x" * 16 * 1024 * 1024)
        assert "object store does not answer" in unavailable(waited)


@pytest.mark.parametrize("size", [0, 8 * 1024 * 1024])
def test_object_store_that_dies_in_mid_request(world: World, size: int) -> None:
    async def die(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    fake = world.replica(die)
    fake.buffered = False
    world.store_url = fake.url
    world.start_gateway()
    with pytest.raises(ClientError) as lost:
        world.client("s3").put_object(Bucket="bucket", Key="k", Body=b"x" * size)
    assert "object store went away in mid-call" in unavailable(lost)


def test_a_slow_client_does_not_use_up_the_stores_time(world: World) -> None:
    """The limit is on the store alone: here the client holds back for longer than it allows."""
    arrived = threading.Event()
    loop = world.loop.loop
    now = loop.time

    async def store(request: web.Request) -> web.Response:
        await request.content.readany()
        arrived.set()
        await request.read()
        return web.Response()

    class Late(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                assert arrived.wait(10)
                loop.time = lambda: now() + 100  # type: ignore[method-assign]
                world.loop.run(asyncio.sleep(0))
            return super().read(size)

    fake = world.replica(store)
    fake.buffered = False
    world.store_url = fake.url
    patient = ConnectionLimits(body_s=3600)
    world.start_gateway(Limits(store_wait_s=60), connections=patient)
    request = urllib.request.Request(
        f"{world.url}/bucket/key",
        data=Late(b"x" * 16384),
        method="PUT",
        headers={"Content-Length": "16384"},
    )
    assert urllib.request.urlopen(request).status == 200
