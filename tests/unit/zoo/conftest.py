"""A hub on loopback that speaks what huggingface_hub asks for, and small builders of models."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ridgeline_zoo import Card, load_cards
from ridgeline_zoo.hashes import HashBook
from ridgeline_zoo.sources.base import FetchRequest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, and what its server is told to do wrong."""

    repository: str = "org/model"
    files: dict[str, bytes] = field(default_factory=dict)
    token_needed: str | None = None
    cut_after: list[int] = field(default_factory=list)
    status: int | None = None
    ranges: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    stated: dict[str, str] = field(default_factory=dict)
    cdn: str = ""
    cdn_saw: list[str | None] = field(default_factory=list)
    url: str = ""


def lfs(name: str) -> bool:
    """Whether the hub keeps a file in its large-file store, with a hash and behind a redirect."""
    return name.endswith((".safetensors", ".bin"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.hub
        path = self.path.split("?")[0]
        hub.requests.append(path)
        if hub.status is not None:
            return self._send(hub.status, b"{}" if hub.status >= 400 else b"<html>", body)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if cdn := re.fullmatch(r"/cdn/(.+)", path):
            hub.cdn_saw.append(self.headers.get("Authorization"))
            return self._file(hub.files[cdn[1]], body)
        match = api or resolve
        if match is None or match[1] != hub.repository:
            return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if (match[2] or "main") not in ("main", "v1", COMMIT):
            return self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        if api:
            siblings = [self._sibling(name, data) for name, data in hub.files.items()]
            info = {"id": hub.repository, "sha": COMMIT, "siblings": siblings}
            return self._send(200, json.dumps(info).encode(), body)
        if hub.token_needed:
            sent = self.headers.get("Authorization")
            if sent != f"Bearer {hub.token_needed}":
                status = 401 if sent is None else 403
                return self._send(status, b"{}", body, {"X-Error-Code": "GatedRepo"})
        if hub.cdn and lfs(match[3]):
            return self._send(302, b"", body, {"Location": f"{hub.cdn}/cdn/{match[3]}"})
        return self._file(hub.files[match[3]], body)

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": name, "size": len(data)}
        if lfs(name):
            stated = self.hub.stated.get(name) or sha256(data)
            entry["lfs"] = {"sha256": stated, "size": len(data), "pointerSize": 130}
        return entry

    def _file(self, data: bytes, body: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        headers = {"ETag": f'"{sha256(data)}"', "X-Repo-Commit": COMMIT}
        if wanted:
            self.hub.ranges.append(wanted[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        if body and self.hub.cut_after and len(rest) > self.hub.cut_after[0]:
            # Promise everything, send a part, hang up.
            self._head(206 if wanted else 200, len(rest), headers)
            self.wfile.write(rest[: self.hub.cut_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self._send(206 if wanted else 200, rest, body, headers)

    def _send(
        self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None
    ) -> None:
        self._head(status, len(data), headers or {})
        if body:
            self.wfile.write(data)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def tiny() -> Card:
    return load_cards().get("tiny-llama-seeded")


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., FetchRequest]:
    """A fetch request for a location, with folders of its own."""
    base = FetchRequest(
        location="",
        revision="main",
        into=tmp_path / "into",
        cache_dir=tmp_path / "cache",
        hashes=HashBook({}),
    )

    def make(location: str, **changes: object) -> FetchRequest:
        request = replace(base, location=location, **changes)  # type: ignore[arg-type]
        request.into.mkdir(exist_ok=True)
        return request

    return make


def safetensors_bytes(payload: bytes = b"\0\0\0\0", name: str = "w") -> bytes:
    """A file of one fp32 tensor."""
    entry = {"dtype": "F32", "shape": [len(payload) // 4], "data_offsets": [0, len(payload)]}
    header = json.dumps({name: entry}).encode()
    return struct.pack("<Q", len(header)) + header + payload


@pytest.fixture
def model_files() -> dict[str, bytes]:
    """What a repository of a model may hold, with things that are not wanted."""
    return {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors_bytes(bytes(4096)),
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": safetensors_bytes(),
        "original/consolidated.00.pth": b"pickle",
        "onnx/model.onnx": b"onnx",
        "README.md": b"# words",
        "1_Pooling/config.json": b"{}",
    }


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "fetched").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "fetched", tmp_path / "out"
