"""Unmodified boto3 against a running service: transform jobs, also through kills."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import BUCKET, running_jobs
from ridgeline_testing import DJL_IMAGE, until
from ridgeline_transforms import Transforms, doubled, json_lines, numbered

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def transforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transforms]:
    with running_jobs(tmp_path_factory.mktemp("transforms") / "data") as running:
        found = Transforms(running)
        found.model("doubles")
        yield found


def test_objects_become_outputs_on_two_instances(transforms: Transforms) -> None:
    jobs = transforms.jobs
    for name in ("a.csv", "deep/b.csv", "c.csv"):
        jobs.put(f"many/{name}", numbered(5))
    jobs.put("many/empty.csv", "")
    name = transforms.create("doubles", "many/", count=2, Tags=[{"Key": "team", "Value": "red"}])
    outputs = transforms.completed(name)
    named = ("a.csv.out", "c.csv.out", "deep/b.csv.out")
    assert outputs == dict.fromkeys(named, doubled(5)) | {"empty.csv.out": ""}
    described = transforms.describe(name)
    assert described["TransformStartTime"] <= described["TransformEndTime"]
    assert described["TransformInput"]["CompressionType"] == "None"
    assert (described["MaxPayloadInMB"], described["MaxConcurrentTransforms"]) == (6, 1)
    [listed] = transforms.sagemaker.list_transform_jobs(NameContains=name)["TransformJobSummaries"]
    assert listed["TransformJobStatus"] == "Completed"
    arn = described["TransformJobArn"]
    assert transforms.sagemaker.list_tags(ResourceArn=arn)["Tags"][0]["Value"] == "red"
    for folder in ("jobs", "job-work"):
        until(lambda path=jobs.service.data_dir / folder: not list(path.glob("*")), 10)


def test_records_are_filtered_and_joined(transforms: Transforms) -> None:
    jobs = transforms.jobs
    packed = gzip.compress(b"first,1\nsecond,2\n")
    jobs.put("joined/data.csv.gz", packed)
    listed = json.dumps([{"prefix": f"s3://{BUCKET}/joined/"}, "data.csv.gz"])
    manifest = jobs.put("joined.manifest", listed)
    name = transforms.create(
        "doubles",
        "",
        source={"S3DataType": "ManifestFile", "S3Uri": manifest},
        input={"CompressionType": "Gzip"},
        BatchStrategy="MultiRecord",
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )
    lines = [
        json.dumps(line)
        for line in json_lines('{"id": 7, "x": 1}\n{"id": 8, "x": 4}')  # as a client writes them
    ]
    jobs.put("fields/f.jsonl", "\n".join(lines))
    fields = transforms.create(
        "doubles",
        "fields/",
        input={"ContentType": "application/jsonlines"},
        output={"Accept": "application/jsonlines"},
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=3,
        DataProcessing={"InputFilter": "$.x", "JoinSource": "Input"},
    )
    assert transforms.completed(name) == {"data.csv.gz.out": "first,2.0\nsecond,4.0\n"}
    assert json_lines(transforms.completed(fields)["f.jsonl.out"]) == [
        {"id": 7, "x": 1, "SageMakerOutput": {"y": 2.0}},
        {"id": 8, "x": 4, "SageMakerOutput": {"y": 8.0}},
    ]


def test_a_deadly_record_among_others_is_named(transforms: Transforms) -> None:
    transforms.jobs.put("deadly/x.csv", "die\n" + "1\n" * 40)
    name = transforms.create(
        "doubles",
        "deadly/",
        BatchStrategy="SingleRecord",
        # The other worker answers before each death, so that the record is to blame.
        Environment={
            "TAKES_S": "0.1",
            "DIES_AFTER_S": "0.7",
            "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        },
        ModelClientConfig={"InvocationsMaxRetries": 0},
        MaxConcurrentTransforms=2,
    )
    described = transforms.wait(name)
    assert described["TransformJobStatus"] == "Failed"
    for words in ("Record 1 of", "model server ended 3 times"):
        assert words in described["FailureReason"]
    assert transforms.outputs(name) == {}
    assert servers(transforms) == []


def test_an_input_that_fails_keeps_none_of_the_others(transforms: Transforms) -> None:
    for name, body in (("1.csv", "1\nrefuse\n3\n"), ("2.csv", numbered(3)), ("3.csv", "refuse")):
        transforms.jobs.put(f"some/{name}", body)
    name = transforms.create(
        "doubles",
        "some/",
        BatchStrategy="SingleRecord",
        ModelClientConfig={"InvocationsMaxRetries": 0},
    )
    described = transforms.wait(name)
    assert described["TransformJobStatus"] == "Failed"
    assert f"Record 2 of s3://{BUCKET}/some/1.csv" in described["FailureReason"]
    assert "2 inputs failed in all" in described["FailureReason"]
    assert transforms.outputs(name) == {"2.csv.out": doubled(3)}


def test_a_stopped_job_keeps_what_is_done(transforms: Transforms) -> None:
    for name in ("1.csv", "2.csv"):
        transforms.jobs.put(f"stopped/{name}", numbered(2 if name == "1.csv" else 500))
    name = transforms.create(
        "doubles", "stopped/", BatchStrategy="SingleRecord", Environment={"TAKES_S": "0.1"}
    )
    until(lambda: len(transforms.asked(name)) > 4, 60)
    transforms.sagemaker.stop_transform_job(TransformJobName=name)
    assert transforms.wait(name, 20)["TransformJobStatus"] == "Stopped"
    assert transforms.outputs(name) == {"1.csv.out": doubled(2)}
    assert servers(transforms) == []


def test_what_cannot_run_is_refused_at_once(transforms: Transforms) -> None:
    for changes, words in (
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "must not exceed 100 MB"),
        ({"DataProcessing": {"InputFilter": "$["}}, "no JSONPath"),
        ({"source": {"S3DataType": "AugmentedManifestFile"}}, "S3Prefix or ManifestFile"),
    ):
        with pytest.raises(ClientError, match=words):
            transforms.create("doubles", "many/", **changes)


def test_a_language_model_answers_lines_of_messages(transforms: Transforms) -> None:
    transforms.sagemaker.create_model(
        ModelName="chats",
        ExecutionRoleArn=transforms.jobs.service.role,
        PrimaryContainer={"Image": DJL_IMAGE, "Environment": {"HF_MODEL_ID": "tiny-llama-seeded"}},
    )
    chats = [{"messages": [{"role": "user", "content": text}], "max_tokens": 4} for text in "ab"]
    transforms.jobs.put("chats/c.jsonl", "\n".join(map(json.dumps, chats)))
    name = transforms.create(
        "chats",
        "chats/",
        input={"ContentType": "application/jsonlines"},
        output={"Accept": "application/json"},
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=2,
        DataProcessing={"JoinSource": "Input"},
    )
    answers = json_lines(transforms.completed(name)["c.jsonl.out"])
    assert [answer["messages"] for answer in answers] == [chat["messages"] for chat in chats]
    for answer in answers:
        said = answer["SageMakerOutput"]
        assert said["choices"][0]["message"]["role"] == "assistant"
        assert said["usage"]["completion_tokens"] == 4
    together = transforms.create("chats", "chats/", input={"ContentType": "application/jsonlines"})
    reason = transforms.wait(together)["FailureReason"]
    for words in ("Records 1 to 2 of", "BatchStrategy SingleRecord"):
        assert words in reason


def servers(transforms: Transforms) -> list[psutil.Process]:
    """Model servers that run, by the file that they execute."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "framework/server.py" in " ".join(words) and words[0] not in ("bwrap", "unshare"):
            environment = process_environment(process)
            if "SAGEMAKER_BATCH" in environment and belongs(transforms, process):
                found.append(process)
    return found


def process_environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def belongs(transforms: Transforms, process: psutil.Process) -> bool:
    """Whether it was started below this test's service."""
    root = str(transforms.jobs.service.data_dir)
    try:
        return any(root in " ".join(parent.cmdline()) for parent in process.parents())
    except psutil.Error:
        return False


def runner_of(transforms: Transforms, name: str) -> psutil.Process:
    for path in (transforms.jobs.service.data_dir / "jobs").glob("*/order.json"):
        if json.loads(path.read_text())["job"] == name:
            shim = json.loads((path.parent / "process.json").read_text())["pid"]
            return psutil.Process(shim).children()[0]
    raise AssertionError(f"no runner of {name}")


def test_kills_lose_and_double_no_record(transforms: Transforms) -> None:
    """The model server, then the control plane, then the runner: each in the middle of a file."""
    count = 120
    data_dir: Path = transforms.jobs.service.data_dir
    transforms.jobs.put("killed/a.csv", numbered(count))
    name = transforms.create(
        "doubles",
        "killed/",
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=2,
        Environment={"TAKES_S": "0.05"},
    )
    until(lambda: len(transforms.asked(name)) >= 10, 60)
    [server] = servers(transforms)
    server.kill()
    until(lambda: len(transforms.asked(name)) >= 40, 60)
    state = json.loads((data_dir / "run" / "supervisor.json").read_text())
    psutil.Process(state["children"]["control"]["pid"]).kill()
    runner_of(transforms, name).kill()
    assert transforms.completed(name) == {"a.csv.out": doubled(count)}
    asked = Counter(transforms.asked(name))
    assert set(asked) == {str(number) for number in range(count)}
    # Only what was under way at a kill was asked for again.
    assert sum(asked.values()) <= count + 6
    assert servers(transforms) == []
