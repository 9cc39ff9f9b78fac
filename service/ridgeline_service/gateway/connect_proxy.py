"""A loopback CONNECT proxy for SDK calls that no endpoint variable can move.

``python -m ridgeline_service.gateway.connect_proxy --data-dir DIR --gateway-url URL [--port 0]``
ends TLS for AWS host names with a certificate of its own and hands the bytes to the gateway as they
are, Host header and signature unchanged; every other host is tunnelled and never read. It knows no
HTTP beyond the CONNECT line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import botocore

from ridgeline_service.files import write_atomic
from ridgeline_service.gateway.certificates import Authority, is_aws
from ridgeline_service.paths import DataDir, place_of
from ridgeline_service.processes import ProcessId

_HEAD_LIMIT = 16 * 1024
_HEAD_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 30.0
_CHUNK = 256 * 1024


class ConnectProxy:
    """Serves on ``port`` of the loopback address once ``start`` returned it."""

    def __init__(self, authority: Authority, gateway_url: str) -> None:
        parts = urlsplit(gateway_url)
        assert parts.hostname is not None
        self._gateway = (parts.hostname, parts.port or 80)
        self._context = lru_cache(maxsize=256)(authority.context)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_CHUNK)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError):
            pass  # one side went away: the tunnel is over, and the other side sees it close
        finally:
            self._open.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = await _read_connect(reader)
        if target is None:
            await _say(writer, "405 Method Not Allowed", "This proxy takes CONNECT requests only.")
            return
        host, port = target
        ours = is_aws(host) and port == 443
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                upstream = await asyncio.open_connection(
                    *(self._gateway if ours else target), limit=_CHUNK
                )
        except (OSError, TimeoutError) as error:
            where = "The gateway" if ours else f"{host}:{port}"
            await _say(writer, "502 Bad Gateway", f"{where} cannot be reached: {error}")
            return
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            if ours:
                await writer.start_tls(self._context(host.lower()))
            await _splice(reader, writer, *upstream)
        finally:
            upstream[1].close()


async def _read_connect(reader: asyncio.StreamReader) -> tuple[str, int] | None:
    """Host and port that the client asks for; None if it asks for anything but a tunnel."""
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
    if len(head) > _HEAD_LIMIT or len(words) != 3 or words[0] != "CONNECT":
        return None
    host, _, port = words[1].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    return host.strip("[]"), int(port)


async def _splice(
    client_reader: asyncio.StreamReader,
    client_writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    """Copy both ways until the upstream is done; a client that is done sending may still read."""
    up = asyncio.create_task(_copy(client_reader, upstream_writer))
    try:
        await _copy(upstream_reader, client_writer)
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _say(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = text.encode()
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n".encode()
        + body
    )
    await writer.drain()


def write_bundle(folder: Path, authority: Authority) -> Path:
    """``ca-bundle.pem``: whom botocore trusts, whom this shell's bundles trust, and us.

    ``REQUESTS_CA_BUNDLE`` replaces a client's own list, so it must hold the public authorities too.
    """
    bundle = folder / "ca-bundle.pem"
    texts = [(Path(botocore.__file__).parent / "cacert.pem").read_text()]
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        other = Path(os.environ.get(name) or bundle)
        if other.is_file() and other.name != bundle.name:
            texts.append(other.read_text())
    write_atomic(bundle, "\n".join([*dict.fromkeys(texts), authority.certificate]))
    return bundle


async def serve(data_dir: DataDir, gateway_url: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. ``state.json`` appears when the proxy listens."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    authority = Authority(data_dir.proxy)
    write_bundle(data_dir.proxy, authority)
    proxy = ConnectProxy(authority, gateway_url)
    listening = await proxy.start(port)
    me = ProcessId.of(os.getpid())
    assert me is not None
    whose = {"place": place_of(data_dir.root), "pid": me.pid, "start_time": me.start_time}
    state = {**whose, "port": listening}
    write_atomic(data_dir.proxy / "state.json", json.dumps(state), mode=0o600)
    await stop.wait()
    await proxy.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ridgeline_service.gateway.connect_proxy")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--gateway-url", required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    asyncio.run(serve(DataDir.find(options.data_dir), options.gateway_url, options.port))


if __name__ == "__main__":
    main()
