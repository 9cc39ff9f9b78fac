from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ridgeline_zoo.errors import (
    GatedModel,
    HashMismatch,
    SourceNotFound,
    SourceUnavailable,
    UnsafeFile,
)
from ridgeline_zoo.hashes import HashBook
from ridgeline_zoo.sources.base import FetchRequest
from ridgeline_zoo.sources.hf import HubSource

MakeRequest = Callable[..., FetchRequest]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    # huggingface_hub waits a second before it takes a broken download up again.
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    # It also writes ten megabytes at a time; what is cut before that is fetched again.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")
    monkeypatch.delenv("HF_TOKEN", raising=False)


def fetched(request: FetchRequest) -> dict[str, bytes]:
    root = request.into
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_only_the_files_of_the_model_are_fetched(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files = model_files
    seen: list[tuple[int, int]] = []
    request = request_for(
        "org/model",
        environment={"HF_ENDPOINT": hub.url},
        progress=lambda stage, done, total: seen.append((done, total)),
    )
    HubSource().fetch(request)
    wanted = {"config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}
    assert fetched(request) == {name: model_files[name] for name in wanted}
    total = sum(len(model_files[name]) for name in wanted)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    assert not list(request.cache_dir.rglob("*.part"))


def test_a_cut_connection_goes_on_where_it_stopped(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files, hub.cut_after = model_files, [1000, 500]
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url})
    HubSource().fetch(request)
    assert fetched(request)["model.safetensors"] == model_files["model.safetensors"]
    assert hub.ranges == ["bytes=1000-", "bytes=1500-"]


def test_a_later_process_goes_on_where_an_earlier_one_gave_up(
    hub: Any,
    request_for: MakeRequest,
    model_files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.files, hub.cut_after = model_files, [1000]
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url})

    def gone(seconds: float) -> None:
        raise ConnectionError("the network went away")

    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", gone)
    with pytest.raises(SourceUnavailable, match="network went away") as caught:
        HubSource().fetch(request)
    assert "kept" in caught.value.hint
    assert not fetched(request)

    HubSource().fetch(request)
    assert hub.ranges == ["bytes=1000-"]
    assert fetched(request)["model.safetensors"] == model_files["model.safetensors"]


@pytest.mark.parametrize("token", [None, "of-another-account"])
def test_a_gated_model_says_where_to_accept_and_what_to_set(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes], token: str | None
) -> None:
    hub.files, hub.token_needed = model_files, "right"
    environment = {"HF_ENDPOINT": hub.url} | ({"HF_TOKEN": token} if token else {})
    request = request_for("org/model", environment=environment, eula="https://example.com/licence")
    with pytest.raises(GatedModel, match="org/model") as caught:
        HubSource().fetch(request)
    assert "https://example.com/licence" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint


def test_a_token_opens_a_gated_model(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files, hub.token_needed = model_files, "right"
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url, "HF_TOKEN": "right"})
    HubSource().fetch(request)
    assert "model.safetensors" in fetched(request)


def test_a_wrong_revision_is_named(hub: Any, request_for: MakeRequest) -> None:
    request = request_for("org/model@v9", environment={"HF_ENDPOINT": hub.url})
    with pytest.raises(SourceNotFound, match="'v9'"):
        HubSource().fetch(request)


def test_files_are_read_at_one_commit(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files = model_files
    HubSource().fetch(request_for("org/model@v1", environment={"HF_ENDPOINT": hub.url}))
    resolved = [path for path in hub.requests if "/resolve/" in path]
    assert resolved
    assert all("/resolve/0123456789abcdef" in path for path in resolved)


def test_a_missing_repository_is_named(hub: Any, request_for: MakeRequest) -> None:
    request = request_for("org/nothing", environment={"HF_ENDPOINT": hub.url})
    with pytest.raises(SourceNotFound, match="org/nothing"):
        HubSource().fetch(request)


def test_a_hub_in_trouble_is_worth_another_try(hub: Any, request_for: MakeRequest) -> None:
    hub.status = 500
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url})
    with pytest.raises(SourceUnavailable, match="500"):
        HubSource().fetch(request)


def test_a_server_that_is_no_hub_is_named(hub: Any, request_for: MakeRequest) -> None:
    hub.status = 200
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url})
    with pytest.raises(SourceUnavailable, match="does not answer like a hub"):
        HubSource().fetch(request)


def test_an_unreachable_hub_is_worth_another_try(request_for: MakeRequest) -> None:
    request = request_for("org/model", environment={"HF_ENDPOINT": "http://127.0.0.1:1"})
    with pytest.raises(SourceUnavailable, match="could not be reached") as caught:
        HubSource().fetch(request)
    assert "HF_ENDPOINT" in caught.value.hint


def test_pickles_are_refused_by_name(hub: Any, request_for: MakeRequest) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url})
    with pytest.raises(UnsafeFile, match=r"pytorch_model\.bin"):
        HubSource().fetch(request)
    assert not any("/resolve/" in path for path in hub.requests)


def test_a_file_that_changed_is_refused_and_not_kept(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files = model_files
    hashes = HashBook({"tokenizer.json": "0" * 64})
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url}, hashes=hashes)
    with pytest.raises(HashMismatch, match=r"tokenizer\.json.*0{64}"):
        HubSource().fetch(request)
    assert not fetched(request)
    assert not list(request.cache_dir.rglob("tokenizer.json.part"))


def test_a_download_the_hub_itself_would_not_recognise_is_refused(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files, hub.stated = model_files, {"model.safetensors": "1" * 64}
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url})
    with pytest.raises(HashMismatch, match=rf"model\.safetensors.*{hub.url} says 1111"):
        HubSource().fetch(request)
    assert not fetched(request)


def test_the_token_goes_to_the_hub_alone(
    hub: Any, request_for: MakeRequest, model_files: dict[str, bytes]
) -> None:
    hub.files, hub.token_needed = model_files, "right"
    hub.cdn = hub.url.replace("127.0.0.1", "localhost")
    request = request_for("org/model", environment={"HF_ENDPOINT": hub.url, "HF_TOKEN": "right"})
    HubSource().fetch(request)
    assert fetched(request)["model.safetensors"] == model_files["model.safetensors"]
    assert hub.cdn_saw == [None]
