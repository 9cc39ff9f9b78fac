"""AWS host names end at the gateway, all others are tunnelled untouched."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.config import Config

from ridgeline_service.gateway.certificates import Authority, is_aws
from ridgeline_service.gateway.connect_proxy import ConnectProxy, write_bundle

from .conftest import World, echo, route


@pytest.fixture
def proxied(world: World) -> Iterator[Config]:
    """What botocore needs to go by way of the proxy."""
    world.publish(route("e", world.replica(echo)))
    world.start_gateway()
    authority = Authority(world.data_dir.proxy)
    write_bundle(world.data_dir.proxy, authority)
    proxy = ConnectProxy(authority, world.url)
    port = world.loop.run(proxy.start())
    yield Config(proxies={"https": f"http://127.0.0.1:{port}"}, retries={"max_attempts": 0})
    world.loop.run(proxy.stop())


def client(world: World, service: str, config: Config) -> Any:
    """As a program has it that knows nothing of the service: AWS's own addresses."""
    bundle = str(world.data_dir.proxy / "ca-bundle.pem")
    return world.client(service, endpoint_url=None, config=config, verify=bundle)


def test_clients_of_aws_reach_the_gateway(world: World, proxied: Config) -> None:
    async def identity(request: web.Request) -> web.Response:
        return web.Response(
            text="<GetCallerIdentityResponse><GetCallerIdentityResult><Account>1</Account>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>"
        )

    world.control.handler = identity
    assert client(world, "sts", proxied).get_caller_identity()["Account"] == "1"
    assert world.control.seen[0].headers["Host"] == "sts.us-east-1.amazonaws.com"
    answer = client(world, "sagemaker-runtime", proxied).invoke_endpoint(
        EndpointName="e", Body=b"x"
    )
    assert answer["Body"].read() == b"echo:x"


@pytest.mark.parametrize("style", ["virtual", "path"])
def test_s3_with_its_own_host_names(world: World, proxied: Config, style: str) -> None:
    config = proxied.merge(Config(s3={"addressing_style": style}))
    s3 = client(world, "s3", config)
    s3.create_bucket(Bucket="my.bucket-1")
    s3.create_bucket(Bucket="bucket-2")
    body = b"over TLS, in aws-chunked frames with a trailer " * 50_000
    s3.put_object(Bucket="bucket-2", Key="v1/models", Body=body)
    assert s3.get_object(Bucket="bucket-2", Key="v1/models")["Body"].read() == body
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="bucket-2")["Contents"]] == [
        "v1/models"
    ]


def test_other_hosts_are_tunnelled_untouched(world: World, proxied: Config) -> None:
    port = int(proxied.proxies["https"].rpartition(":")[2])
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        peer, _ = listening.accept()
        with peer:
            data = b""
            while piece := peer.recv(100):
                data += piece
            peer.sendall(data[::-1])

    server = threading.Thread(target=answer)
    server.start()
    with socket.create_connection(("127.0.0.1", port)) as tunnel:
        tunnel.sendall(f"CONNECT 127.0.0.1:{listening.getsockname()[1]} HTTP/1.1\r\n\r\n".encode())
        assert b" 200 " in tunnel.recv(1000)
        tunnel.sendall(b"\x16\x03 not HTTP")
        tunnel.shutdown(socket.SHUT_WR)
        got = b""
        while piece := tunnel.recv(100):
            got += piece
    assert got == b"\x16\x03 not HTTP"[::-1]
    server.join()
    listening.close()


def test_what_the_proxy_refuses(world: World, proxied: Config) -> None:
    port = int(proxied.proxies["https"].rpartition(":")[2])
    closed = socket.create_server(("127.0.0.1", 0))
    gone = closed.getsockname()[1]
    closed.close()
    for line, status in (
        ("GET http://example.com/ HTTP/1.1", b" 405 "),
        ("CONNECT nonsense HTTP/1.1", b" 405 "),
        (f"CONNECT 127.0.0.1:{gone} HTTP/1.1", b" 502 "),
    ):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(f"{line}\r\n\r\n".encode())
            assert status in peer.recv(1000)


def test_the_authority_is_kept_and_guarded(tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "proxy"), Authority(tmp_path / "proxy")
    assert first.certificate == second.certificate
    assert stat.S_IMODE((tmp_path / "proxy" / "ca.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "proxy").iterdir()) == ["ca.key", "ca.pem"]


@pytest.mark.parametrize(
    ("host", "trusted"), [("api.sagemaker.us-east-1.amazonaws.com", True), ("bank.example", False)]
)
def test_the_authority_vouches_for_aws_names_only(tmp_path: Path, host: str, trusted: bool) -> None:
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cadata=authority.certificate)
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(client_in, client_out, server_hostname=host)
    server = authority.context(host).wrap_bio(server_in, server_out, server_side=True)

    def shake() -> None:
        for _ in range(4):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                server_in.write(client_out.read())
                client_in.write(server_out.read())

    if trusted:
        shake()
        assert client.getpeercert()
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            shake()


def test_which_hosts_are_ours() -> None:
    assert is_aws("s3.amazonaws.com")
    assert is_aws("BUCKET.s3.eu-west-1.amazonaws.com")
    assert is_aws("sts.cn-north-1.amazonaws.com.cn")
    assert not is_aws("amazonaws.com.evil.example")
    assert not is_aws("notamazonaws.com")
    assert not is_aws("huggingface.co")
