"""Unmodified boto3 against a running service: processing jobs, from inputs to outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import BUCKET, IMAGE, running_jobs
from ridgeline_processing import LOGS, Processing, objects, output, source
from ridgeline_testing import until

pytestmark = pytest.mark.e2e

SCRIPT = """
import json, os, socket, sys
from pathlib import Path

config = json.loads(Path("/opt/ml/config/processingjobconfig.json").read_text())
resources = json.loads(Path("/opt/ml/config/resourceconfig.json").read_text())
data = Path("/opt/ml/processing/input/data")
print("processing on", resources["current_host"], flush=True)
found = {
    "arguments": sys.argv[1:],
    "config": config["ProcessingJobName"],
    "cwd": os.getcwd(),
    "env": os.environ["MY_ENV"],
    "files": sorted(path.name for path in data.iterdir()),
    "hosts": [socket.gethostbyname(host) for host in resources["hosts"]],
}
host = resources["current_host"]
out = Path("/opt/ml/processing/results/deep")
out.mkdir()
(out / f"{host}.json").write_text(json.dumps(found))
Path("/opt/ml/output/message").write_text(f"done by {host}")
"""


@pytest.fixture(scope="module")
def processing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processing]:
    with running_jobs(tmp_path_factory.mktemp("processing") / "data") as running:
        yield Processing(running)


def test_inputs_become_outputs_on_two_instances(processing: Processing) -> None:
    for number in range(3):
        processing.jobs.put(f"numbers/{number}.txt", str(number))
    place = f"s3://{BUCKET}/results-of-two"
    described = processing.run(
        SCRIPT,
        arguments=("--mode", "a b"),
        count=2,
        inputs=[
            source(
                "data",
                f"s3://{BUCKET}/numbers",
                "/opt/ml/processing/input/data/",
                S3DataDistributionType="ShardedByS3Key",
            )
        ],
        outputs=[output("out", "/opt/ml/processing/results", place)],
        Environment={"MY_ENV": "v"},
        Tags=[{"Key": "team", "Value": "red"}],
    )
    name = described["ProcessingJobName"]
    assert described["ProcessingJobStatus"] == "Completed", described.get("FailureReason")
    assert described["ExitMessage"] == "done by algo-1"
    assert described["ProcessingStartTime"] <= described["ProcessingEndTime"]
    found = {key: json.loads(body) for key, body in objects(processing, "results-of-two/").items()}
    assert sorted(found) == ["deep/algo-1.json", "deep/algo-2.json"]
    first = found["deep/algo-1.json"]
    assert (first["arguments"], first["config"], first["env"]) == (["--mode", "a b"], name, "v")
    assert first["hosts"] == ["127.0.0.1", "127.0.0.1"]
    assert first["files"] == ["0.txt", "2.txt"]
    assert found["deep/algo-2.json"]["files"] == ["1.txt"]
    assert "processing on algo-2" in processing.jobs.lines(name, LOGS)
    arn = described["ProcessingJobArn"]
    assert processing.sagemaker.list_tags(ResourceArn=arn)["Tags"][0]["Value"] == "red"
    [listed] = processing.sagemaker.list_processing_jobs(NameContains=name)[
        "ProcessingJobSummaries"
    ]
    assert (listed["ProcessingJobStatus"], listed["ExitMessage"]) == ("Completed", "done by algo-1")
    until(lambda: not list((processing.jobs.service.data_dir / "jobs").iterdir()), 10)


def test_a_failure_tells_why_and_uploads_nothing(processing: Processing) -> None:
    described = processing.run(
        "from pathlib import Path\n"
        "Path('/opt/ml/processing/out/half.txt').write_text('half')\n"
        "Path('/opt/ml/output/message').write_text('the second row has no date')\n"
        "raise KeyError('date')\n",
        outputs=[output("out", "/opt/ml/processing/out", f"s3://{BUCKET}/nothing")],
    )
    assert described["ProcessingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("AlgorithmError: ")
    assert "KeyError: 'date'" in described["FailureReason"]
    assert described["ExitMessage"] == "the second row has no date"
    assert objects(processing, "nothing") == {}


CONTINUOUS = """
import os, time
from pathlib import Path
out = Path("/opt/ml/processing/out")
(out / "first.txt").write_text("1")
print("begun", flush=True)
time.sleep(float(os.environ.get("WAIT_S", "600")))
(out / "last.txt").write_text("2")
"""


def test_continuous_outputs_are_there_while_the_job_runs_and_after_a_stop(
    processing: Processing,
) -> None:
    name = processing.create(
        CONTINUOUS,
        outputs=[
            output("out", "/opt/ml/processing/out", f"s3://{BUCKET}/always", "Continuous"),
        ],
        NetworkConfig={"EnableNetworkIsolation": True},
    )
    until(lambda: objects(processing, "always/") == {"first.txt": b"1"}, 30)
    assert processing.describe(name)["ProcessingJobStatus"] == "InProgress"
    with pytest.raises(ClientError, match="Stop it first"):
        processing.sagemaker.delete_processing_job(ProcessingJobName=name)
    processing.sagemaker.stop_processing_job(ProcessingJobName=name)
    assert processing.describe(name)["ProcessingJobStatus"] == "Stopping"
    assert processing.wait(name)["ProcessingJobStatus"] == "Stopped"
    processing.sagemaker.delete_processing_job(ProcessingJobName=name)
    with pytest.raises(ClientError, match="Could not find requested job"):
        processing.describe(name)


def test_what_cannot_run_is_refused_at_once(processing: Processing) -> None:
    for changes, words in (
        ({"inputs": [source("x", "s3://b/k", "/etc")]}, "below /opt/ml/processing"),
        (
            {"inputs": [source("x", "s3://b/k", "/opt/ml/processing/../../../etc")]},
            "below /opt/ml/processing",
        ),
        ({"AppSpecification": {"ImageUri": IMAGE}}, "ContainerEntrypoint"),
        ({"AppSpecification": {"ImageUri": "no/such:1"}}, "No runtime is known"),
    ):
        with pytest.raises(ClientError, match=words):
            processing.create("", **changes)


def test_kills_of_control_plane_and_runner(processing: Processing) -> None:
    """The job outlives the control plane. Without its runner it begins again if nothing of it can
    have been seen, else it fails, and nothing stays."""
    data_dir: Path = processing.jobs.service.data_dir

    def create(name: str, mode: str) -> str:
        place = output("out", "/opt/ml/processing/out", f"s3://{BUCKET}/{name}", mode)
        return processing.create(CONTINUOUS, outputs=[place], Environment={"WAIT_S": "4"})

    again, dies = create("again", "EndOfJob"), create("dies", "Continuous")
    for name in (again, dies):
        until(lambda name=name: processing.says(name, "begun"), 40)
    shims = {
        json.loads(path.read_text())["job"]: psutil.Process(
            json.loads((path.parent / "process.json").read_text())["pid"]
        )
        for path in (data_dir / "jobs").glob("*/order.json")
    }
    family = [each for shim in shims.values() for each in shim.children(recursive=True)]
    state = json.loads((data_dir / "run" / "supervisor.json").read_text())
    for process in (
        psutil.Process(state["children"]["control"]["pid"]),
        *(shims[name].children()[0] for name in (again, dies)),
    ):
        process.kill()
    assert processing.wait(again)["ProcessingJobStatus"] == "Completed"
    assert objects(processing, "again/") == {"first.txt": b"1", "last.txt": b"2"}
    described = processing.wait(dies)
    assert described["ProcessingJobStatus"] == "Failed"
    assert "The job runner was ended by SIGKILL" in described["FailureReason"]
    assert psutil.wait_procs(family, timeout=10)[1] == []
