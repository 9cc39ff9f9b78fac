"""Weights of one's own: what serves them, where they go, and what `ridgeline deploy` says."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ridgeline import OwnModel
from ridgeline.errors import InvalidInput, NotFound
from ridgeline.own_model import place_name
from ridgeline.session import Session

Run = Callable[..., Result]
WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json")


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


def container(fake: Any) -> Any:
    (request,) = fake.requests("CreateModel")
    return request["PrimaryContainer"]


def listing(*keys: str) -> bytes:
    items = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()


def test_a_folder_of_weights_is_a_language_model(
    fake: Any, run: Run, sdk_tools: Any, tmp_path: Path
) -> None:
    own = folder(tmp_path / "my_model", *WEIGHTS, ".git/objects/large")
    fake.endpoint("my-model", "Creating", "InService")
    result = run("deploy", str(own), "--env", "MAX_NUM_SEQS=4", "--instance-type", "ml.c5.large")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "my-model\n"
    assert 'ridgeline invoke my-model --data \'{"inputs"' in result.stderr
    assert "/djl-inference:" in container(fake)["Image"]
    assert container(fake)["Environment"] == {"MAX_NUM_SEQS": "4"}
    prefix = container(fake)["ModelDataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://")
    assert {key: body for key, (body, _) in fake.objects.items()} == {
        f"{prefix}{name}": name.encode() for name in WEIGHTS
    }
    (config,) = fake.requests("CreateEndpointConfig")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.c5.large"


@pytest.mark.parametrize("uri", ["s3://b/weights", "s3://b/weights/"])
def test_a_prefix_in_s3_stays_where_it_is(fake: Any, run: Run, sdk_tools: Any, uri: str) -> None:
    fake.rules["GET /b"] = sdk_tools.Reply(listing(*(f"weights/{name}" for name in WEIGHTS)))
    result = run("deploy", uri, "--name", "mine", "--no-wait")
    assert result.exit_code == 0, result.stderr
    assert "/djl-inference:" in container(fake)["Image"]
    assert container(fake)["ModelDataSource"]["S3DataSource"]["S3Uri"] == "s3://b/weights/"
    assert fake.objects == {}


@pytest.mark.parametrize(
    ("names", "image"),
    [
        (("model.pth", "code/inference.py"), "pytorch-inference"),
        (("scripted.pt",), "pytorch-inference"),
        ((*WEIGHTS, "code/inference.py"), "huggingface-pytorch-inference"),
        ((*WEIGHTS, "optimizer.pt"), "djl-inference"),
        (tuple(f"./{name}" for name in WEIGHTS), "djl-inference"),
    ],
)
def test_what_lies_in_the_archive_of_a_job_decides_who_serves_it(
    fake: Any, run: Run, names: tuple[str, ...], image: str
) -> None:
    fake.objects["b/train-2026/output/model.tar.gz"] = (archive(*names), "")
    uri = "s3://b/train-2026/output/model.tar.gz"
    result = run("deploy", uri, "--no-wait")
    assert result.stdout == "train-2026\n", result.stderr
    assert f"/{image}:" in container(fake)["Image"]
    assert container(fake)["ModelDataUrl"] == uri


def test_a_framework_may_be_named(fake: Any, run: Run) -> None:
    fake.objects["b/model.tar.gz"] = (archive("model.joblib", "code/inference.py"), "")
    uri = "s3://b/model.tar.gz"
    assert run("deploy", uri, "--framework", "sklearn", "--no-wait").exit_code == 0
    assert "/sagemaker-scikit-learn:" in container(fake)["Image"]
    refused = run("deploy", uri, "--framework", "sklern")
    assert refused.exit_code == 2
    assert "'sklearn'" in refused.stderr


def test_a_script_may_come_along(fake: Any, run: Run, sdk_tools: Any, tmp_path: Path) -> None:
    fake.objects["b/j/model.tar.gz"] = (archive("weights.bin"), "")
    script = folder(tmp_path, "serve.py") / "serve.py"
    arguments = ("--entry-point", str(script), "--no-wait")
    assert run("deploy", "s3://b/j/model.tar.gz", *arguments).stdout == "j\n"
    assert "/pytorch-inference:" in container(fake)["Image"]
    assert container(fake)["Environment"]["SAGEMAKER_PROGRAM"] == "serve.py"
    fake.rules["GET /b"] = sdk_tools.Reply(listing("j/weights.bin"))
    refused = run("deploy", "s3://b/j/", *arguments)
    assert refused.exit_code == 2
    assert "code/inference.py" in refused.stderr


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("config.json", "model.safetensors"), "no tokenizer.json"),
        (("config.json", "pytorch_model.bin", "tokenizer.json"), "no weights as safetensors"),
        (("model.onnx",), "Nothing serves what lies at"),
        (tuple(f"inner/{name}" for name in WEIGHTS), "inner/config.json"),
    ],
)
def test_what_nothing_serves_is_refused_before_anything_is_made(
    fake: Any, session: Session, tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        OwnModel(folder(tmp_path / "own", *names), sagemaker_session=session)
    assert caught.value.hint
    assert fake.operations() == []
    assert fake.objects == {}


def test_a_place_without_files_is_not_found(
    fake: Any, session: Session, sdk_tools: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    fake.rules["GET /b"] = sdk_tools.Reply(listing())
    for place in (tmp_path / "absent", tmp_path / "empty", "s3://b/none/", "s3://b/x.tar.gz"):
        with pytest.raises(NotFound):
            OwnModel(place, sagemaker_session=session)
    no_archive = folder(tmp_path, "x.tar.gz") / "x.tar.gz"
    with pytest.raises(InvalidInput, match="no tar archive"):
        OwnModel(no_archive, sagemaker_session=session)


def test_a_model_of_the_hub_needs_no_card(fake: Any, run: Run, sdk_tools: Any) -> None:
    fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": []})
    result = run("deploy", "Qwen/Qwen2.5-0.5B@main", "--env", "A=1", "--no-wait")
    assert result.stdout == "Qwen2-5-0-5B\n"
    assert "/djl-inference:" in container(fake)["Image"]
    assert container(fake)["Environment"] == {"HF_MODEL_ID": "Qwen/Qwen2.5-0.5B@main", "A": "1"}


def test_a_folder_that_is_named_like_a_model_is_pointed_to(
    fake: Any, run: Run, sdk_tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder(tmp_path, "own/config.json", "models/own/config.json"))
    fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": []})
    for text in ("own", "models/own"):
        result = run("deploy", text)
        assert result.exit_code == 4
        assert f"ridgeline deploy ./{text}" in result.stderr
    assert fake.operations() == []


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("s3://b/train-2026/output/model.tar.gz", "train-2026"),
        ("s3://b/my.weights/", "my-weights"),
        ("s3://b/mine.tar.gz", "mine"),
        ("s3://b", "b"),
        ("/srv/my_model/", "my-model"),
        ("/", "model"),
    ],
)
def test_an_endpoint_is_named_after_the_folder_or_the_job(place: str, name: str) -> None:
    assert place_name(place) == name


def test_options_for_own_weights_are_refused_for_a_model_of_the_zoo(fake: Any, run: Run) -> None:
    result = run("deploy", "tiny", "--framework", "pytorch")
    assert result.exit_code == 2
    assert fake.calls == []
