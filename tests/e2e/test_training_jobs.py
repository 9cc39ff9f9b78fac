"""Unmodified boto3 against a running service: training jobs, from their data to their artifacts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import BUCKET, Jobs, running_jobs
from ridgeline_testing import until

from ridgeline import PyTorch, Session, TrainingFailed
from ridgeline._progress import SilentProgress

pytestmark = pytest.mark.e2e

SCRIPT = """
import argparse, json, os, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--name")
args = parser.parse_args()
import helper

data = Path(os.environ["SM_CHANNEL_TRAIN"])
numbers = [int(path.read_text()) for path in sorted(data.glob("*.txt"))]
for epoch in range(args.epochs):
    print(f"epoch={epoch} train_mse={1 / (epoch + 1)};", flush=True)
config = json.loads(Path("/opt/ml/input/config/resourceconfig.json").read_text())
result = {
    "sum": sum(numbers),
    "name": args.name,
    "helper": helper.VALUE,
    "host": config["current_host"],
    "cwd": os.getcwd(),
    "env": {k: v for k, v in os.environ.items()},
    "sees": sorted(os.listdir("/opt/ml")),
    "data_dir": os.path.exists(os.environ["SECRET_DIR"]),
}
(Path(os.environ["SM_MODEL_DIR"]) / "model.json").write_text(json.dumps(result))
(Path(os.environ["SM_OUTPUT_DATA_DIR"]) / "notes.txt").write_text("kept")
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("training") / "data") as running:
        yield running


def test_a_regex_that_takes_for_ever_holds_up_neither_script_nor_other_metrics(
    jobs: Jobs,
) -> None:
    described = jobs.run(
        "for number in range(9):\n    print('a' * 60 + '!', 'loss=0.5')",
        algorithm={
            "MetricDefinitions": [
                {"Name": "endless", "Regex": "(a|aa)+$"},
                {"Name": "loss", "Regex": "loss=([0-9.]+)"},
            ]
        },
    )
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert [(m["MetricName"], m["Value"]) for m in described["FinalMetricDataList"]] == [
        ("loss", 0.5)
    ]


def test_script_mode_from_data_to_artifacts(jobs: Jobs) -> None:
    for number in range(3):
        jobs.put(f"numbers/{number}.txt", str(number + 1))
    described = jobs.run(
        SCRIPT,
        files={"helper.py": "VALUE = 42"},
        hyperparameters={"epochs": "3", "name": json.dumps("a b")},
        InputDataConfig=[jobs.channel("train", f"s3://{BUCKET}/numbers")],
        Environment={"MY_ENV": "v", "SECRET_DIR": str(jobs.service.data_dir)},
        algorithm={"MetricDefinitions": [{"Name": "mse", "Regex": "train_mse=([0-9.]+);"}]},
        Tags=[{"Key": "team", "Value": "red"}],
    )
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    statuses = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert statuses == [
        "Starting",
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert described["BillableTimeInSeconds"] >= 0
    [metric] = described["FinalMetricDataList"]
    assert (metric["MetricName"], round(metric["Value"], 4)) == ("mse", 0.3333)
    found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    result = json.loads(found["model.json"])
    assert (result["sum"], result["name"], result["helper"]) == (6, "a b", 42)
    assert (result["host"], result["cwd"]) == ("algo-1", "/opt/ml/code")
    assert result["sees"] == ["code", "input", "model", "output"]
    assert not result["data_dir"]
    environment = result["env"]
    assert environment["MY_ENV"] == "v"
    assert json.loads(environment["SM_HPS"]) == {"epochs": 3, "name": "a b"}
    assert not [name for name in environment if "STORE" in name or "SECRET_A" in name]
    name = described["TrainingJobName"]
    output = f"s3://{BUCKET}/out/{name}/output/output.tar.gz"
    assert jobs.artifact(output) == {"notes.txt": b"kept"}
    assert "epoch=2 train_mse=0.3333333333333333;" in jobs.lines(name)
    tags = jobs.sagemaker.list_tags(ResourceArn=described["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "red"}]
    listed = jobs.sagemaker.list_training_jobs(NameContains=name)["TrainingJobSummaries"]
    assert [item["TrainingJobStatus"] for item in listed] == ["Completed"]
    until(lambda: not list((jobs.service.data_dir / "jobs").iterdir()), 10)


FOREVER = """
import os, signal, sys, time
from pathlib import Path
def stop(*_):
    Path("/opt/ml/model/kept.txt").write_text("so far")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("trains", flush=True)
while True:
    time.sleep(0.05)
"""
STUBBORN = """
import os, signal, time
from pathlib import Path
Path("/opt/ml/model/kept.txt").write_text("so far")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
print("trains", flush=True)
time.sleep(600)
"""


def processes_of(jobs: Jobs, name: str) -> list[psutil.Process]:
    """Runners, shims and sandboxes of one job."""
    arn = jobs.describe(name)["TrainingJobArn"]
    needle = arn.encode()
    found = []
    for process in psutil.process_iter():
        try:
            if needle in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("script", [FOREVER, STUBBORN], ids=["polite", "stubborn"])
def test_a_stopped_job_keeps_its_artifacts_and_leaves_nothing(jobs: Jobs, script: str) -> None:
    name = jobs.create(script)
    until(lambda: jobs.says(name, "trains"), 30)
    assert processes_of(jobs, name)
    began = time.monotonic()
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    assert jobs.describe(name)["SecondaryStatus"] == "Stopping"
    described = jobs.wait(name, 20)
    assert time.monotonic() - began < 15
    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "Stopped"
    found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    assert found == {"kept.txt": b"so far"}
    assert processes_of(jobs, name) == []
    with pytest.raises(ClientError, match="in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName=name)


LATE = """
import signal, time
def fail(*_):
    raise OSError("no room for the model")
signal.signal(signal.SIGTERM, fail)
for number in range(3000):
    print("a" * 350)
print("trains", flush=True)
time.sleep(600)
"""


def test_a_stop_waits_for_no_metric_and_tells_how_the_script_failed(jobs: Jobs) -> None:
    slow = [{"Name": f"m{each}", "Regex": r"(a*)(a*)[bc](\d)"} for each in range(4)]
    name = jobs.create(LATE, algorithm={"MetricDefinitions": slow})
    until(lambda: jobs.says(name, "trains"), 30)
    began = time.monotonic()
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    described = jobs.wait(name, 60)
    assert time.monotonic() - began < 25
    assert described["TrainingJobStatus"] == "Stopped"
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == ""
    said = [each["StatusMessage"] for each in described["SecondaryStatusTransitions"]]
    assert (
        "The script was asked to stop and ended with ExitCode 1: OSError: no room for the model"
        in said
    )
    assert any("metrics were not looked for in" in line for line in jobs.lines(name))


def test_the_time_a_job_may_take_ends_it(jobs: Jobs) -> None:
    described = jobs.run(FOREVER, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])


def test_an_entrypoint_and_several_instances_with_shards(jobs: Jobs) -> None:
    for number in range(5):
        jobs.put(f"shards/{number}.txt", str(number))
    jobs.put(
        "manifest.json", json.dumps([{"prefix": "s3://" + BUCKET + "/shards/"}, "1.txt", "3.txt"])
    )
    code = """
import json, os, socket
host = os.environ["SM_CURRENT_HOST"]
shard = sorted(os.listdir("/opt/ml/input/data/sharded"))
listed = sorted(os.listdir("/opt/ml/input/data/listed"))
names = [socket.gethostbyname(name) for name in json.loads(os.environ["SM_HOSTS"])]
print("RESULT", json.dumps([host, socket.gethostname(), shard, listed, names]), flush=True)
"""
    jobs.put("entry/run.py", code)
    described = jobs.run(
        "",
        algorithm={"ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/run.py"]},
        hyperparameters={"sagemaker_program": "", "sagemaker_submit_directory": ""},
        InputDataConfig=[
            jobs.channel("code", f"s3://{BUCKET}/entry/run.py"),
            jobs.channel(
                "sharded", f"s3://{BUCKET}/shards/", S3DataDistributionType="ShardedByS3Key"
            ),
            jobs.channel("listed", f"s3://{BUCKET}/manifest.json", S3DataType="ManifestFile"),
        ],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 5},
        EnableNetworkIsolation=False,
    )
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    lines = jobs.lines(described["TrainingJobName"])
    results = sorted(json.loads(line.split(" ", 1)[1]) for line in lines if "RESULT" in line)
    listed, names = ["1.txt", "3.txt"], ["127.0.0.1", "127.0.0.1"]
    assert results == [
        ["algo-1", "algo-1", ["0.txt", "2.txt", "4.txt"], listed, names],
        ["algo-2", "algo-2", ["1.txt", "3.txt"], listed, names],
    ]


CHECKPOINTED = """
import json, os, sys, time
from pathlib import Path
folder = Path("/opt/ml/checkpoints")
folder.mkdir(exist_ok=True)
done = max((int(path.stem) for path in folder.glob("*.json")), default=0)
state = json.loads((folder / f"{done}.json").read_text()) if done else {"loss": 1.0}
print(f"begins at {done}", flush=True)
for step in range(done + 1, 21):
    state["loss"] *= 0.9
    time.sleep(float(os.environ.get("STEP_S", "0.1")))
    part = folder / f".{step}.part"
    part.write_text(json.dumps(state))
    part.rename(folder / f"{step}.json")
    print(f"step {step}", flush=True)
Path("/opt/ml/model/loss.json").write_text(json.dumps(state))
"""


def runner_pids(jobs: Jobs, name: str) -> list[int]:
    """The runner's own process, beside its shim and its sandbox."""
    found = []
    for path in (jobs.service.data_dir / "jobs").glob("*/order.json"):
        if json.loads(path.read_text())["job"] == name:
            shim = json.loads((path.parent / "process.json").read_text())["pid"]
            found += [child.pid for child in psutil.Process(shim).children()]
    return found


FAST = """
import json, os
from pathlib import Path

data = Path(os.environ["SM_CHANNEL_TRAIN"])
result = {"names": sorted(path.name for path in data.iterdir()), "one": (data / "b").read_text()}
Path("/opt/ml/model/result.json").write_text(json.dumps(result))
"""


def test_a_fast_file_channel_is_there_whole_and_read_in_parts(jobs: Jobs) -> None:
    """Whether files are fetched when they are opened or before depends on who runs the service."""
    for name in "abc":
        jobs.put(f"fast/{name}", name * 1000)
    channel = {**jobs.channel("train", f"s3://{BUCKET}/fast"), "InputMode": "FastFile"}
    described = jobs.run(FAST, InputDataConfig=[channel])
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    assert json.loads(found["result.json"]) == {"names": ["a", "b", "c"], "one": "b" * 1000}
    missing = {**jobs.channel("train", f"s3://{BUCKET}/nothing/there"), "InputMode": "FastFile"}
    failed = jobs.run(FAST, InputDataConfig=[missing])
    assert "no S3 objects found under" in failed["FailureReason"]


def test_a_killed_runner_fails_its_job_or_the_job_goes_on(jobs: Jobs) -> None:
    plain = jobs.create(FOREVER)
    resumed = jobs.create(
        CHECKPOINTED,
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/{plain}"},
        Environment={"STEP_S": "0.4"},
    )
    until(lambda: jobs.says(plain, "trains") and jobs.says(resumed, "step 3"), 40)
    time.sleep(4.5)  # two looks of the synchronisation
    for name in (plain, resumed):
        [pid] = runner_pids(jobs, name)
        psutil.Process(pid).kill()
    described = jobs.wait(plain)
    assert described["TrainingJobStatus"] == "Failed"
    assert "The job runner was ended by SIGKILL" in described["FailureReason"]
    assert processes_of(jobs, plain) == []
    described = jobs.wait(resumed)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    statuses = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert statuses.count("Restarting") == 1
    begins = [line for line in jobs.lines(resumed) if line.startswith("begins at")]
    assert begins[0] == "begins at 0"
    assert int(begins[1].split()[-1]) > 0
    found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    assert json.loads(found["loss.json"])["loss"] == pytest.approx(0.9**20)


def test_a_job_survives_the_control_plane(jobs: Jobs) -> None:
    name = jobs.create(CHECKPOINTED)
    until(lambda: jobs.says(name, "step 2"), 30)
    state = json.loads((jobs.service.data_dir / "run" / "supervisor.json").read_text())
    psutil.Process(state["children"]["control"]["pid"]).kill()
    described = jobs.wait(name)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert [line for line in jobs.lines(name) if "begins" in line] == ["begins at 0"]
    statuses = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert "Restarting" not in statuses


def test_jobs_that_are_stopped_while_they_start(jobs: Jobs) -> None:
    names = []
    for number in range(6):
        names.append(jobs.create(FOREVER))
        time.sleep(0.1 * number)
        jobs.sagemaker.stop_training_job(TrainingJobName=names[-1])
    assert [jobs.wait(name, 20)["TrainingJobStatus"] for name in names] == ["Stopped"] * 6


def test_names_are_unique_and_only_ended_jobs_go(jobs: Jobs) -> None:
    name = jobs.create(FOREVER)
    with pytest.raises(ClientError, match="must be unique"):
        jobs.create(FOREVER, name=name)
    with pytest.raises(ClientError, match="Stop it first"):
        jobs.sagemaker.delete_training_job(TrainingJobName=name)
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    jobs.wait(name)
    jobs.sagemaker.delete_training_job(TrainingJobName=name)
    with pytest.raises(ClientError, match="Requested resource not found"):
        jobs.describe(name)


def test_the_sdk_and_the_command_line(jobs: Jobs, tmp_path: Path) -> None:
    service = jobs.service
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "a.txt").write_text("20")
    (tmp_path / "train.py").write_text(
        "import argparse, os, pathlib\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--add', type=int)\n"
        "args = parser.parse_args()\n"
        "number = int(pathlib.Path(os.environ['SM_CHANNEL_TRAIN'], 'a.txt').read_text())\n"
        "if args.add > 10:\n"
        "    raise ValueError(f'{args.add} is too much')\n"
        "print(f'total={number + args.add}')\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'n').write_text(str(number + args.add))\n"
    )
    arguments = [str(tmp_path / "train.py"), "--input", f"train={tmp_path / 'numbers'}"]
    done = service.cli("train", *arguments, "--hp", "add=3", "--name", "by-cli")
    assert done.stdout.strip() == "by-cli"
    assert "Training - " in done.stderr
    assert "total=23" in done.stderr
    assert service.cli("logs", "by-cli").stdout.splitlines() == ["total=23"]
    assert "by-cli: Completed" in service.cli("describe", "by-cli").stdout
    assert "by-cli" in service.cli("jobs").stdout
    estimator = PyTorch(
        str(tmp_path / "train.py"),
        hyperparameters={"add": 11},
        sagemaker_session=Session(data_dir=service.data_dir, progress=SilentProgress()),
    )
    with pytest.raises(TrainingFailed, match="ValueError: 11 is too much") as caught:
        estimator.fit({"train": str(tmp_path / "numbers")})
    assert "ValueError: 11 is too much" in caught.value.log_tail[-1]
    failed = service.cli("train", *arguments, "--hp", "add=12", check=False)
    assert failed.returncode == 1
    assert "ValueError: 12 is too much" in failed.stderr
    attached = PyTorch.attach("by-cli", estimator.sagemaker_session)
    assert jobs.artifact(attached.model_data) == {"n": b"23"}


DDP = """
import json, os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(4, 1))
data, target = torch.randn(8, 4), torch.randn(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
share = slice(rank * 8 // world, (rank + 1) * 8 // world)
losses = []
for step in range(5):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(data[share]), target[share]).backward()
    optimizer.step()
    with torch.no_grad():
        losses.append(torch.nn.functional.mse_loss(model.module(data), target).item())
if rank == 0:
    Path("/opt/ml/model/losses.json").write_text(json.dumps([world, losses]))
dist.destroy_process_group()
"""


@pytest.mark.skipif(not os.environ.get("RIDGELINE_CHAOS"), reason="slow: `make chaos` runs it")
def test_two_instances_under_torchrun_train_as_one(jobs: Jobs) -> None:
    """With the same global batch the loss curve is that of one process."""
    curves = {}
    for count in (1, 2):
        described = jobs.run(
            DDP,
            hyperparameters={"sagemaker_torch_distributed_enabled": "true"},
            ResourceConfig={
                "InstanceType": "ml.m5.large",
                "InstanceCount": count,
                "VolumeSizeInGB": 5,
            },
        )
        assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
        found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
        world, curves[count] = json.loads(found["losses.json"])
        assert world == count
    assert curves[2] == pytest.approx(curves[1], rel=1e-5)
