"""Deploying: the calls that are made, and what is left when one is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ridgeline import AsyncInferenceConfig, Model, ServerlessInferenceConfig, ZooModel
from ridgeline.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from ridgeline.session import Session

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
CREATED = ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]


def names(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name: file.read()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }


def make_archive(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_deploy_makes_model_config_and_endpoint(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    model = Model(IMAGE, "s3://b/model.tar.gz", env={"A": "1"}, name="m", sagemaker_session=session)
    fake.endpoint("e", "Creating", "InService")
    predictor = model.deploy(
        2,
        "ml.c5.large",
        endpoint_name="e",
        tags=[{"Key": "k", "Value": "v"}],
        volume_size=5,
        model_data_download_timeout=60,
        container_startup_health_check_timeout=90,
    )
    assert predictor.endpoint_name == "e"
    assert fake.operations() == CREATED
    assert fake.requests("CreateModel") == [
        {
            "ModelName": "m",
            "PrimaryContainer": {
                "Image": IMAGE,
                "ModelDataUrl": "s3://b/model.tar.gz",
                "Environment": {"A": "1"},
            },
            "ExecutionRoleArn": sdk_tools.role,
            "Tags": [{"Key": "k", "Value": "v"}],
        }
    ]
    (config,) = fake.requests("CreateEndpointConfig")
    assert config["ProductionVariants"] == [
        {
            "VariantName": "AllTraffic",
            "InitialVariantWeight": 1.0,
            "InitialInstanceCount": 2,
            "InstanceType": "ml.c5.large",
            "VolumeSizeInGB": 5,
            "ModelDataDownloadTimeoutInSeconds": 60,
            "ContainerStartupHealthCheckTimeoutInSeconds": 90,
            "ModelName": "m",
        }
    ]
    (endpoint,) = fake.requests("CreateEndpoint")
    assert endpoint["EndpointConfigName"] == config["EndpointConfigName"] == "e"


def test_names_are_made_of_the_image_and_the_time(fake: Any, session: Session) -> None:
    predictor = Model(IMAGE, sagemaker_session=session).deploy(wait=False)
    assert predictor.endpoint_name == "pytorch-inference-20231114-221320-000"
    assert fake.requests("CreateModel")[0]["ModelName"] == predictor.endpoint_name


def test_a_model_is_created_once_however_often_it_is_deployed(
    fake: Any, session: Session, clock: Any
) -> None:
    model = Model(IMAGE, sagemaker_session=session)
    first = model.deploy(wait=False)
    clock.now += 1
    second = model.deploy(wait=False)
    assert first.endpoint_name != second.endpoint_name
    assert fake.operations().count("CreateModel") == 1


@pytest.mark.parametrize(
    ("refused", "deleted"),
    [
        ("CreateModel", []),
        ("CreateEndpointConfig", ["DeleteModel"]),
        ("CreateEndpoint", ["DeleteEndpointConfig", "DeleteModel"]),
    ],
)
def test_a_refused_call_leaves_nothing_behind(
    fake: Any, session: Session, sdk_tools: Any, refused: str, deleted: list[str]
) -> None:
    fake.rules[refused] = sdk_tools.aws_error("ValidationException", "No such instance type")
    with pytest.raises(InvalidInput):
        Model(IMAGE, sagemaker_session=session).deploy()
    made = CREATED[: CREATED.index(refused) + 1]
    assert fake.operations() == made + deleted


TAKEN = "Cannot create already existing endpoint configuration"


def test_a_taken_name_is_said_of_the_endpoint(fake: Any, session: Session, sdk_tools: Any) -> None:
    fake.endpoint("e")
    fake.rules["CreateEndpointConfig"] = sdk_tools.aws_error("ValidationException", TAKEN)
    with pytest.raises(AlreadyExists, match="Endpoint 'e' exists already and is InService"):
        Model(IMAGE, sagemaker_session=session).deploy(endpoint_name="e")
    assert fake.operations()[-1] == "DeleteModel"


def test_a_configuration_that_was_left_over_does_not_keep_the_name(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.on(
        "CreateEndpointConfig",
        sdk_tools.aws_error("ValidationException", TAKEN),
        sdk_tools.Reply({"EndpointConfigArn": "arn:aws:sagemaker:us-east-1:1:x/y" * 2}),
    )
    fake.rules["DescribeEndpoint"] = sdk_tools.aws_error(
        "ValidationException", 'Could not find endpoint "e".'
    )
    Model(IMAGE, sagemaker_session=session).deploy(endpoint_name="e", wait=False)
    (endpoint,) = fake.requests("CreateEndpoint")
    assert endpoint["EndpointName"] == "e"
    assert endpoint["EndpointConfigName"].startswith("e-2023")


def test_an_unclear_end_of_create_endpoint_deletes_nothing(
    fake: Any, session: Session, sdk_tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint may exist, and then it needs its model."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fake.rules["CreateEndpoint"] = sdk_tools.aws_error("ServiceUnavailable", "away", 503)
    with pytest.raises(Unavailable):
        Model(IMAGE, sagemaker_session=session).deploy()
    assert not [name for name in fake.operations() if name.startswith("Delete")]


def test_a_prefix_and_a_source_mapping_are_model_data_sources(fake: Any, session: Session) -> None:
    Model(IMAGE, "s3://b/weights/", sagemaker_session=session).create()
    source = {
        "S3DataSource": {"S3Uri": "s3://b/x/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    }
    Model(IMAGE, {**source}, sagemaker_session=session).create()
    first, second = (r["PrimaryContainer"] for r in fake.requests("CreateModel"))
    assert first["ModelDataSource"]["S3DataSource"] == {
        "S3Uri": "s3://b/weights/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
    assert second["ModelDataSource"] == source


def test_code_is_packed_into_the_archive(
    fake: Any, session: Session, tmp_path: Path, sdk_tools: Any
) -> None:
    old = make_archive(
        tmp_path / "old.tar.gz", {"./weights.bin": b"w", "code/inference.py": b"old"}
    )
    fake.objects["b/old.tar.gz"] = (old.read_bytes(), "")
    source = tmp_path / "src"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__" / "x.pyc").write_bytes(b"x")
    (source / "inference.py").write_bytes(b"new")
    (source / "requirements.txt").write_bytes(b"six")
    helper = tmp_path / "helpers"
    helper.mkdir()
    (helper / "util.py").write_bytes(b"util")

    Model(
        IMAGE,
        "s3://b/old.tar.gz",
        name="m",
        source_dir=source,
        entry_point="inference.py",
        dependencies=[helper],
        sagemaker_session=session,
    ).create()

    (container,) = (r["PrimaryContainer"] for r in fake.requests("CreateModel"))
    assert container["ModelDataUrl"] == f"s3://{sdk_tools.bucket}/m/model.tar.gz"
    assert container["Environment"] == {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
        "SAGEMAKER_REGION": "us-east-1",
    }
    assert names(fake.objects[f"{sdk_tools.bucket}/m/model.tar.gz"][0]) == {
        "./weights.bin": b"w",
        "code/inference.py": b"new",
        "code/requirements.txt": b"six",
        "code/helpers/util.py": b"util",
    }


def test_a_single_entry_point_without_data(
    fake: Any, session: Session, tmp_path: Path, sdk_tools: Any
) -> None:
    script = tmp_path / "serve.py"
    script.write_bytes(b"code")
    model = Model(IMAGE, entry_point=str(script), name="m", sagemaker_session=session)
    model.create()
    assert names(fake.objects[f"{sdk_tools.bucket}/m/model.tar.gz"][0]) == {
        "code/serve.py": b"code"
    }
    environment = fake.requests("CreateModel")[0]["PrimaryContainer"]["Environment"]
    assert environment["SAGEMAKER_PROGRAM"] == "serve.py"


def test_local_model_data_is_uploaded(
    fake: Any, session: Session, tmp_path: Path, sdk_tools: Any
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"w")
    archive = make_archive(tmp_path / "a.tar.gz", {"x": b"y"})
    Model(IMAGE, folder, name="folder", sagemaker_session=session).create()
    Model(IMAGE, f"file://{archive}", name="file", sagemaker_session=session).create()
    uploaded = fake.objects[f"{sdk_tools.bucket}/folder/model.tar.gz"][0]
    assert names(uploaded) == {"weights.bin": b"w"}
    assert fake.objects[f"{sdk_tools.bucket}/file/model.tar.gz"][0] == archive.read_bytes()


def test_wrong_model_data_is_refused_before_anything_is_made(
    fake: Any, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "no.tar.gz").write_bytes(b"not an archive")
    script = tmp_path / "serve.py"
    script.write_bytes(b"")
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (NotFound, {"model_data": str(tmp_path / "absent.tar.gz")}),
        (NotFound, {"entry_point": str(tmp_path / "absent.py")}),
        (NotFound, {"source_dir": tmp_path, "entry_point": "absent.py"}),
        (NotFound, {"source_dir": tmp_path / "absent"}),
        (NotFound, {"entry_point": str(script), "dependencies": [tmp_path / "absent"]}),
        (InvalidInput, {"model_data": tmp_path / "no.tar.gz", "entry_point": str(script)}),
        (InvalidInput, {"model_data": {"S3DataSource": {}}, "entry_point": str(script)}),
    ]
    for wanted, arguments in cases:
        with pytest.raises(wanted):
            Model(IMAGE, sagemaker_session=session, **arguments).deploy()
    assert fake.operations() == []


def test_async_and_serverless(fake: Any, session: Session, sdk_tools: Any) -> None:
    model = Model(IMAGE, sagemaker_session=session)
    model.deploy(
        endpoint_name="a",
        wait=False,
        async_inference_config=AsyncInferenceConfig(max_concurrent_invocations_per_instance=2),
    )
    model.deploy(
        endpoint_name="s",
        wait=False,
        serverless_inference_config=ServerlessInferenceConfig(1024, 3),
    )
    first, second = fake.requests("CreateEndpointConfig")
    assert first["AsyncInferenceConfig"] == {
        "OutputConfig": {
            "S3OutputPath": f"s3://{sdk_tools.bucket}/async-endpoint-outputs/a",
            "S3FailurePath": f"s3://{sdk_tools.bucket}/async-endpoint-failures/a",
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
    }
    assert second["ProductionVariants"][0]["ServerlessConfig"] == {
        "MemorySizeInMB": 1024,
        "MaxConcurrency": 3,
    }
    assert "InstanceType" not in second["ProductionVariants"][0]
    with pytest.raises(InvalidInput, match="exclude"):
        model.deploy(1, serverless_inference_config=ServerlessInferenceConfig())


CARD = {
    "id": "tiny",
    "task": "text-generation",
    "default_instance_type": "ml.m5.large",
    "hub_id": "Org/Tiny",
    "image_uri": IMAGE,
    "environment": {"HF_MODEL_ID": "tiny", "X": "card"},
}


def test_a_zoo_model_brings_image_environment_and_instance_type(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.rules["GET /api/zoo/tiny"] = sdk_tools.Reply(CARD)
    ZooModel("tiny", env={"X": "mine"}, sagemaker_session=session).deploy(wait=False)
    (model,) = fake.requests("CreateModel")
    assert model["PrimaryContainer"] == {
        "Image": IMAGE,
        "Environment": {"HF_MODEL_ID": "tiny", "X": "mine"},
    }
    assert model["ModelName"].startswith("tiny-")
    (config,) = fake.requests("CreateEndpointConfig")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.m5.large"


def test_a_zoo_model_by_its_name_on_the_hub(fake: Any, session: Session, sdk_tools: Any) -> None:
    fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": [CARD]})
    fake.rules["GET /api/zoo/tiny"] = sdk_tools.Reply(CARD)
    assert ZooModel("Org/Tiny", sagemaker_session=session).model_id == "tiny"
    with pytest.raises(NotFound, match="Org/Other"):
        ZooModel("Org/Other", sagemaker_session=session)


def test_an_unknown_zoo_model_brings_the_service_s_suggestion(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.rules["GET /api/zoo/tiney"] = sdk_tools.api_error(
        "NotFound", "No model 'tiney'.", 404, "Did you mean 'tiny'?"
    )
    with pytest.raises(NotFound) as caught:
        ZooModel("tiney", sagemaker_session=session)
    assert caught.value.hint == "Did you mean 'tiny'?"


def test_an_endpoint_name_is_checked_before_anything_is_made(fake: Any, session: Session) -> None:
    model = Model(IMAGE, sagemaker_session=session)
    with pytest.raises(InvalidInput, match="endpoint_name: 'bad_name'") as caught:
        model.deploy(endpoint_name="bad_name")
    assert "'bad-name'" in caught.value.hint
    assert fake.calls == []


def test_a_refused_model_does_not_take_the_data_of_its_namesake(
    fake: Any, session: Session, sdk_tools: Any, tmp_path: Path
) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"x": b"y"})
    Model(IMAGE, archive, name="m", sagemaker_session=session).deploy(wait=False)
    fake.rules["CreateModel"] = sdk_tools.aws_error("ValidationException", "m already exists")
    with pytest.raises(AlreadyExists):
        Model(IMAGE, archive, name="m", sagemaker_session=session).deploy(wait=False)
    assert f"{sdk_tools.bucket}/m/model.tar.gz" in fake.objects


def test_a_refused_deploy_leaves_the_data_of_those_before(
    fake: Any, session: Session, sdk_tools: Any, tmp_path: Path, clock: Any
) -> None:
    model = Model(
        IMAGE, make_archive(tmp_path / "a.tar.gz", {"x": b"y"}), sagemaker_session=session
    )
    model.deploy(wait=False)
    before = set(fake.objects)
    model.delete_model()
    clock.now += 1
    fake.rules["CreateEndpoint"] = sdk_tools.aws_error("ValidationException", "no room")
    with pytest.raises(InvalidInput):
        model.deploy(wait=False)
    assert set(fake.objects) == before
