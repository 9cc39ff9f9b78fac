"""What processors and transformers send, what a wait shows, and what the command line says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from ridgeline import (
    Model,
    NetworkConfig,
    ProcessingInput,
    ProcessingOutput,
    Processor,
    ScriptProcessor,
    SKLearnProcessor,
    Transformer,
)
from ridgeline._progress import PlainProgress
from ridgeline.errors import InvalidInput, NotFound, ProcessingFailed, TransformFailed
from ridgeline.session import Session

ARN = "arn:aws:sagemaker:us-east-1:123456789012:{}-job/j"
INPUT, OUTPUT = "/opt/ml/processing/input/data", "/opt/ml/processing/out"


def described(kind: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        f"{kind}JobName": "j",
        f"{kind}JobArn": ARN.format(kind.lower()),
        f"{kind}JobStatus": status,
        "CreationTime": 1.7e9,
        **more,
    }


def transform(status: str, **more: Any) -> dict[str, Any]:
    return described(
        "Transform",
        status,
        ModelName="m",
        BatchStrategy="SingleRecord",
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3"}}},
        TransformOutput={"S3OutputPath": "s3://b/out", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
        **more,
    )


@pytest.fixture
def accepted(fake: Any, sdk_tools: Any) -> Any:
    for kind in ("Processing", "Transform"):
        reply = sdk_tools.Reply({f"{kind}JobArn": ARN.format(kind.lower())})
        fake.on(f"Create{kind}Job", reply)
    fake.on("CreateModel", sdk_tools.Reply({"ModelArn": "arn"}))
    fake.rules["DescribeLogStreams"] = sdk_tools.aws_error("ResourceNotFoundException", "no")
    return fake


def test_a_script_and_local_data_are_uploaded(
    session: Session, accepted: Any, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text("print(1)")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1")
    processor = SKLearnProcessor(
        "1.2-1",
        env={"A": "b"},
        max_runtime_in_seconds=60,
        network_config=NetworkConfig(enable_network_isolation=True),
        sagemaker_session=session,
    )
    processor.run(
        tmp_path / "run.py",
        inputs=[ProcessingInput(tmp_path / "data", INPUT)],
        outputs=[ProcessingOutput(OUTPUT), ProcessingOutput(OUTPUT, "s3://b/x", "named")],
        arguments=["--n", 3],  # type: ignore[list-item]
        wait=False,
        job_name="j",
    )
    [request] = accepted.requests("CreateProcessingJob")
    application = request["AppSpecification"]
    assert application["ImageUri"].endswith("/sagemaker-scikit-learn:1.2-1-cpu-py3")
    assert application["ContainerEntrypoint"] == [
        "python3",
        "/opt/ml/processing/input/code/run.py",
    ]
    assert application["ContainerArguments"] == ["--n", "3"]
    data, code = request["ProcessingInputs"]
    assert (data["InputName"], code["InputName"]) == ("input-1", "code")
    for item, name, body in ((data, "/a.csv", b"1"), (code, "", b"print(1)")):
        uri = item["S3Input"]["S3Uri"].removeprefix("s3://")
        assert accepted.objects[f"{uri}{name}"][0] == body
    first, second = request["ProcessingOutputConfig"]["Outputs"]
    assert first["S3Output"]["S3Uri"].endswith("/j/output/output-1")
    assert (second["OutputName"], second["S3Output"]["S3Uri"]) == ("named", "s3://b/x")
    assert request["NetworkConfig"] == {"EnableNetworkIsolation": True}
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 60}


def test_what_is_not_there_is_said_before_anything_is_created(
    session: Session, accepted: Any
) -> None:
    script = ScriptProcessor(image_uri="r/pytorch-training:1", sagemaker_session=session)
    with pytest.raises(NotFound, match=r"Input 'code': 'nowhere\.py' does not exist"):
        script.run("nowhere.py")
    with pytest.raises(NotFound, match="data: 'nowhere' does not exist"):
        Transformer("m", sagemaker_session=session).transform("nowhere")
    with pytest.raises(InvalidInput, match="image_uri"):
        Processor(sagemaker_session=session)
    assert accepted.requests("CreateProcessingJob") == []
    assert accepted.requests("CreateTransformJob") == []


def test_a_wait_shows_the_status_and_a_failure_raises(
    session: Session, accepted: Any, sdk_tools: Any
) -> None:
    shown = io.StringIO()
    session.progress = PlainProgress(shown)
    reason = "AlgorithmError: ExitCode 1\nLast log lines:\nboom"
    accepted.on(
        "DescribeProcessingJob",
        sdk_tools.Reply(described("Processing", "InProgress", FailureReason="Waiting for room.")),
        sdk_tools.Reply(described("Processing", "InProgress")),
        sdk_tools.Reply(
            described("Processing", "Failed", FailureReason=reason, ExitMessage="no date")
        ),
    )
    processor = Processor(image_uri="i", entrypoint=["python3", "x.py"], sagemaker_session=session)
    with pytest.raises(ProcessingFailed, match="Processing job 'j' failed: AlgorithmError") as told:
        processor.run(job_name="j")
    assert told.value.log_tail == ("boom",)
    texts = [line.removeprefix("2023-11-14 22:13:20 ") for line in shown.getvalue().splitlines()]
    assert texts == [
        "Processing job j",
        "InProgress - Waiting for room.",
        "InProgress",
        "Failed - no date",
    ]


def test_a_models_transformer_sends_what_was_given(
    session: Session, accepted: Any, sdk_tools: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("1")
    model = Model("r/pytorch-inference:1", "s3://b/m.tar.gz", name="m", sagemaker_session=session)
    transformer = model.transformer(
        2, "ml.m5.large", strategy="SingleRecord", assemble_with="Line", accept="text/csv"
    )
    accepted.on("DescribeTransformJob", sdk_tools.Reply(transform("Completed")))
    transformer.transform(
        tmp_path,
        content_type="text/csv",
        split_type="Line",
        input_filter="$[1:]",
        join_source="Input",
        model_client_config={"InvocationsMaxRetries": 1},
        job_name="j",
    )
    [request] = accepted.requests("CreateTransformJob")
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    assert accepted.objects[source["S3Uri"].removeprefix("s3://") + "/a.csv"][0] == b"1"
    assert request["TransformOutput"]["S3OutputPath"] == transformer.output_path
    assert request["DataProcessing"] == {"InputFilter": "$[1:]", "JoinSource": "Input"}
    assert request["BatchStrategy"] == "SingleRecord"
    assert "MaxPayloadInMB" not in request
    attached = Transformer.attach("j", session)
    assert (attached.model_name, attached.instance_count) == ("m", 2)
    assert attached.output_path == "s3://b/out"
    accepted.on("DescribeTransformJob", sdk_tools.Reply(transform("Stopped")))
    with pytest.raises(TransformFailed, match="was stopped"):
        attached.wait()
    with pytest.raises(NotFound, match="no transform job"):
        Transformer("m", sagemaker_session=session).wait()


class TestCommands:
    def test_jobs_of_all_kinds_are_listed_found_and_stopped(
        self, run: Any, fake: Any, sdk_tools: Any
    ) -> None:
        for at, kind in enumerate(("Processing", "Transform")):
            summary = described(kind, "InProgress") | {"CreationTime": 1.7e9 + at}
            summary[f"{kind}JobName"] = kind.lower()
            fake.rules[f"List{kind}Jobs"] = sdk_tools.Reply({f"{kind}JobSummaries": [summary]})
        table = [line.split()[:3] for line in run("jobs").stdout.splitlines()]
        assert table == [
            ["NAME", "KIND", "STATUS"],
            ["transform", "transform", "InProgress"],
            ["processing", "processing", "InProgress"],
        ]
        fake.rules["DescribeEndpoint"] = sdk_tools.aws_error(
            "ValidationException", 'Could not find endpoint "j".'
        )
        fake.rules["DescribeTransformJob"] = sdk_tools.Reply(transform("InProgress"))
        text = run("describe", "j").stdout
        assert "j: InProgress" in text
        assert "runs on: 2 x ml.m5.large" in text
        assert "output: s3://b/out" in text
        fake.rules["StopTransformJob"] = sdk_tools.Reply({})
        assert run("stop", "j").exit_code == 0
        assert fake.requests("StopTransformJob") == [{"TransformJobName": "j"}]
