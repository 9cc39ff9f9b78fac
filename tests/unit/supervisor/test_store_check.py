"""An S3 that ``s3_endpoint`` names is asked before the service starts, and by the doctor."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.cli.app import app
from ridgeline.errors import Unavailable
from ridgeline_service.commands import doctor
from ridgeline_service.objects.reach import check_store
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings

LIST = b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"


class Store(ThreadingHTTPServer):
    status = 200
    code = ""
    page: bytes | None = None
    """What it answers in place of S3's XML."""


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """``up`` sets that of its process, which is the tests' here."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def store() -> Iterator[Store]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Store)
            error = f"<Error><Code>{self.server.code}</Code><Message>no</Message></Error>"
            body = LIST if self.server.status == 200 else error.encode()
            if self.server.page is not None:
                body = self.server.page
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with Store(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(store: Store) -> str:
    return f"http://127.0.0.1:{store.server_address[1]}"


def configured(tmp_path: Path, url: str) -> tuple[Settings, DataDir]:
    given = {"s3_endpoint": url, "s3_access_key_id": "a", "s3_secret_access_key": "b"}
    (tmp_path / "settings.json").write_text(json.dumps(given))
    return Settings(**given), DataDir(tmp_path)


@pytest.fixture
def nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_service_does_not_start_on_a_store_that_is_not_there(
    tmp_path: Path, nowhere: str
) -> None:
    configured(tmp_path, nowhere)
    result = CliRunner().invoke(app, ["up", "--data-dir", str(tmp_path), "--port", "0"])
    assert result.exit_code == 3
    for named in (str(tmp_path / "settings.json"), "s3_endpoint", nowhere):
        assert named in result.stderr.replace("\n", "")


def test_the_doctor_says_so(tmp_path: Path, nowhere: str, store: Store) -> None:
    _, directory = configured(tmp_path, nowhere)
    (found,) = doctor._store(directory)
    assert (found.ok, found.needed) == (False, True)
    assert nowhere in found.detail
    configured(tmp_path, address(store))
    (found,) = doctor._store(directory)
    assert found.ok
    (tmp_path / "settings.json").write_text("{}")
    assert doctor._store(directory) == []


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_a_key_that_the_store_does_not_know_is_refused(
    tmp_path: Path, store: Store, code: str
) -> None:
    store.status, store.code = 403, code
    with pytest.raises(Unavailable, match="refuses the key") as caught:
        check_store(*configured(tmp_path, address(store)))
    assert "s3_secret_access_key" in caught.value.hint


def test_a_key_that_may_not_list_buckets_will_do(tmp_path: Path, store: Store) -> None:
    store.status, store.code = 403, "AccessDenied"
    check_store(*configured(tmp_path, address(store)))


@pytest.mark.parametrize("status", [200, 403, 404, 500, 502])
@pytest.mark.parametrize(
    "page", [b"<html><body>Welcome</body></html>", b"<!doctype html><p>Hi", b'{"ok": 1}', b""]
)
def test_what_is_no_s3_is_refused(tmp_path: Path, store: Store, status: int, page: bytes) -> None:
    store.status, store.page = status, page
    with pytest.raises(Unavailable, match="answers, but not as an S3 does") as caught:
        check_store(*configured(tmp_path, address(store)))
    assert "HTTP 500" not in str(caught.value)


def test_an_s3_in_trouble_is_refused(tmp_path: Path, store: Store) -> None:
    store.status, store.code = 503, "SlowDown"
    with pytest.raises(Unavailable, match="answers HTTP 503"):
        check_store(*configured(tmp_path, address(store)))


def test_what_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline_service.objects.reach._PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match="cannot be used"):
            check_store(*configured(tmp_path, url))


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    configured(tmp_path, "http://[::1")
    result = CliRunner().invoke(app, ["up", "--data-dir", str(tmp_path), "--port", "0"])
    assert result.exit_code in (2, 3)
    assert "s3_endpoint" in result.stderr
    assert "bug" not in result.stderr


def test_the_doctor_names_the_directory_to_start(tmp_path: Path) -> None:
    assert f"ridgeline up --data-dir {tmp_path}" in doctor._service(DataDir(tmp_path)).detail
