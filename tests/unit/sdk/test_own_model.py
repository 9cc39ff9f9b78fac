"""Weights of one's own: what serves them, where they go, and what `ridgeline deploy` says."""

from __future__ import annotations

import io
import os
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
ABSENT = "Could not find endpoint."
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
    fake.rules["DescribeEndpoint"] = sdk_tools.aws_error("ValidationException", ABSENT)
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


@pytest.fixture
def free(fake: Any, sdk_tools: Any) -> None:
    """No endpoint has any name."""
    fake.rules["DescribeEndpoint"] = sdk_tools.aws_error("ValidationException", ABSENT)


def uploaded(fake: Any) -> set[str]:
    """Names of what was uploaded, without bucket and prefix; of an archive, what is in it."""
    names: set[str] = set()
    for key, (body, _) in fake.objects.items():
        name = key.split("/", 2)[2]
        if name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                names |= {each.name for each in tar if each.isreg()}
        else:
            names.add(name)
    return names


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("names", [WEIGHTS, ("scripted.pt", "code/inference.py")])
def test_links_are_followed_and_hidden_files_stay(
    fake: Any, run: Run, tmp_path: Path, names: tuple[str, ...]
) -> None:
    real = folder(tmp_path / "real", *names, "extra/more.bin")
    own = folder(tmp_path / "own", ".env", ".cache/large", "inner/.hidden")
    (own / ".nowhere").symlink_to("nowhere")
    for each in real.iterdir():
        (own / each.name).symlink_to(Path("..") / "real" / each.name)
    (real / "extra" / "loop").symlink_to(real / "extra")
    result = run("deploy", str(own), "--no-wait")
    assert result.exit_code == 0, result.stderr
    assert uploaded(fake) == {*names, "extra/more.bin"}


def test_the_person_is_told_of_hidden_files(
    fake: Any, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(session.progress, "note", notes.append)
    own = folder(tmp_path / "own", *WEIGHTS, ".env", ".cache/large")
    OwnModel(own, sagemaker_session=session).create()
    assert "Hidden files are not uploaded: .cache, .env" in notes


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_named_before_anything_is_uploaded(
    fake: Any, run: Run, tmp_path: Path, kind: str
) -> None:
    own = folder(tmp_path / "own", *WEIGHTS)
    if kind == "link":
        (own / "odd").symlink_to("nowhere")
    else:
        os.mkfifo(own / "odd")
    result = run("deploy", str(own))
    assert result.exit_code == 2
    assert str(own / "odd") in result.stderr.replace("\n", "")
    assert fake.objects == {}


@pytest.mark.parametrize("status", ["InService", "Creating"])
def test_a_taken_name_is_refused_before_the_upload(
    fake: Any, run: Run, tmp_path: Path, status: str
) -> None:
    own = folder(tmp_path / "own", *WEIGHTS)
    fake.endpoint("own")
    fake.rules["DescribeEndpoint"][0].body["EndpointStatus"] = status
    result = run("deploy", str(own))
    assert result.exit_code == 6
    assert f"'own' exists already and is {status}" in result.stderr
    assert [call.path for call in fake.calls if call.method == "PUT"] == []


@pytest.mark.parametrize("instance_type", ["m5.large", "ml.m5.larg"])
def test_an_unknown_instance_type_is_refused_before_the_upload(
    fake: Any, run: Run, tmp_path: Path, instance_type: str
) -> None:
    own = folder(tmp_path / "own", *WEIGHTS)
    result = run("deploy", str(own), "--instance-type", instance_type)
    assert result.exit_code == 2
    assert "ml.m5.large" in result.stderr
    assert fake.calls == []


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("instance_type", ["ml.t3.medium", "ml.trn2.3xlarge", "ml.trn2u.48xlarge"])
def test_the_service_may_know_more_instance_types(
    fake: Any, run: Run, tmp_path: Path, instance_type: str
) -> None:
    own = folder(tmp_path / "own", *WEIGHTS)
    assert run("deploy", str(own), "--instance-type", instance_type, "--no-wait").exit_code == 0


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("refused", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
@pytest.mark.parametrize("names", [WEIGHTS, ("scripted.pt",)])
def test_a_refused_deploy_leaves_no_copy(
    fake: Any, run: Run, sdk_tools: Any, tmp_path: Path, refused: str, names: tuple[str, ...]
) -> None:
    own = folder(tmp_path / "own", *names)
    fake.rules[refused] = sdk_tools.aws_error("ValidationException", "There is no room.")
    assert run("deploy", str(own)).exit_code == 2
    put = [call.path for call in fake.calls if call.method == "PUT"]
    assert len(put) == len(names)
    assert fake.objects == {}


@pytest.mark.parametrize(
    ("framework", "names", "words"),
    [
        ("sklearn", ("model.joblib",), "--entry-point"),
        ("sklearn", WEIGHTS, "without --framework"),
        ("pytorch", WEIGHTS, "without --framework"),
        ("huggingface", ("scripted.pt",), "--entry-point"),
    ],
)
def test_a_named_framework_finds_something_to_serve(
    fake: Any, run: Run, tmp_path: Path, framework: str, names: tuple[str, ...], words: str
) -> None:
    own = folder(tmp_path / "own", *names)
    result = run("deploy", str(own), "--framework", framework)
    assert result.exit_code == 2
    assert "code/inference.py" in result.stderr
    assert words in result.stderr
    assert fake.calls == []


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    ("framework", "names"),
    [
        ("huggingface", WEIGHTS),
        ("pytorch", ("scripted.pt",)),
        ("sklearn", ("model.joblib", "code/serve.py")),
    ],
)
def test_a_framework_that_can_serve_it_may_be_named(
    fake: Any, run: Run, tmp_path: Path, framework: str, names: tuple[str, ...]
) -> None:
    own = folder(tmp_path / "own", *names)
    program = ("--env", "SAGEMAKER_PROGRAM=serve.py") if "code/serve.py" in names else ()
    result = run("deploy", str(own), "--framework", framework, "--no-wait", *program)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("~nobody-of-this-name/x", 4, "~nobody-of-this-name/x does not exist"),
        ("gguf/m.gguf", 2, "GGUF files of your own are not served"),
        ("./gguf/m.gguf", 2, "GGUF files of your own are not served"),
        ("./gguf", 2, "GGUF files of your own are not served"),
        ("s3://b/own/model.safetensors", 4, "Give a folder"),
        ("s3://nobucket/", 4, "s3://nobucket/"),
        ("", 2, "./FOLDER"),
        ("file:///srv/own", 2, "./FOLDER"),
        ("S3://b/own", 2, "s3://"),
        ("a/b/c", 4, "ORG/NAME"),
    ],
)
def test_a_place_that_is_none_has_a_next_step(
    fake: Any, run: Run, sdk_tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    text: str, code: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder(tmp_path, "gguf/m.gguf"))
    fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": []})
    fake.rules["GET /b"] = sdk_tools.Reply(listing())
    result = run("deploy", text)
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
    assert fake.operations() == []
