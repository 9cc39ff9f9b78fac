"""Jobs while processes die: every one ends right and once, and what was trained is bit-equal."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest
from ridgeline_jobs import BUCKET, ENDED, Jobs, running_jobs
from ridgeline_testing import RIDGELINE, shell_environment, until

from ridgeline_service.paths import DataDir
from ridgeline_service.processes import find_by_command
from ridgeline_service.supervisor.state import read_state

pytestmark = pytest.mark.e2e
FULL = bool(os.environ.get("RIDGELINE_CHAOS"))
SEEDS = range(20) if FULL else (7,)
KILLS = 20 if FULL else 1
CHECKPOINTS = "storm/killed"
JOBS = 10
STEPS = 40
STORM_S = 12.0
VICTIMS = ("control", "objects", "supervisor", "runner", "runner", "shim")

COUNTING = """
import json, os, time
from pathlib import Path

folder = Path("/opt/ml/checkpoints")
folder.mkdir(exist_ok=True)
found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
state = max(found, key=lambda each: each["step"], default={"step": 0, "sum": 0})
name = os.environ["TRAINING_JOB_NAME"]
print("begins at", state["step"], flush=True)
while state["step"] < int(os.environ["STEPS"]):
    time.sleep(0.1)
    state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"], "name": name}
    if state["step"] % 5 == 0:
        part = folder / ".part"
        part.write_text(json.dumps(state))
        part.rename(folder / f"{state['step']}.json")
print(f"sum={state['sum']};", flush=True)
Path("/opt/ml/model/state.json").write_text(json.dumps(state))
"""
TRAINING = """
import os, time
from pathlib import Path

import torch

folder = Path("/opt/ml/checkpoints")
folder.mkdir(exist_ok=True)
draw = torch.Generator().manual_seed(3)
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
step = 0
whole = sorted(folder.glob("*.pt"), key=lambda path: int(path.stem))
if whole:
    state = torch.load(whole[-1])
    step = state["step"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    draw.set_state(state["draw"])
print("begins at", step, flush=True)
while step < int(os.environ["STEPS"]):
    data = torch.randn(32, 8, generator=draw)
    optimizer.zero_grad()
    loss = (model(data)[:, 0] - data.sum(1).sin()).square().mean()
    loss.backward()
    optimizer.step()
    step += 1
    time.sleep(0.02)
    if step % 25 == 0:
        state = {"step": step, "model": model.state_dict(), "draw": draw.get_state()}
        torch.save(state | {"optimizer": optimizer.state_dict()}, folder / "part")
        (folder / "part").rename(folder / f"{step}.pt")
print(f"loss={loss.item().hex()};", flush=True)
torch.save([each.numpy().tobytes() for each in model.state_dict().values()], "/opt/ml/model/w.pt")
Path("/opt/ml/model/loss.txt").write_text(loss.item().hex())
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("storms") / "data", max_instances=32) as running:
        yield running


@dataclass
class Storm:
    """Kills processes of a service, by a seed. ``hits`` counts kills of a job's own processes."""

    jobs: Jobs
    seed: int
    hits: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def rage(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(self._dice.uniform(0.2, 2.0))
            self.strike(self._dice.choice(VICTIMS))

    def strike(self, victim: str) -> None:
        """SIGKILL one process; what is not there at the moment is spared."""
        state = read_state(DataDir(self.jobs.service.data_dir))
        assert state is not None
        if victim == "supervisor":
            kill(state.supervisor.pid)
            self._up(state.port)
        elif victim in state.children:
            kill(state.children[victim].pid)
        elif found := running(self.jobs):
            name, shim = self._dice.choice(found)
            pid = shim if victim == "shim" else runner_below(shim)
            if pid is not None and kill(pid):
                self.hits[name] += 1

    def _up(self, port: int) -> None:
        directory = str(self.jobs.service.data_dir)
        command = [RIDGELINE, "up", "--detach", "--port", str(port), "--data-dir", directory]
        subprocess.run(command, env=shell_environment(), check=True, timeout=60)


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def running(jobs: Jobs) -> list[tuple[str, int]]:
    """Names of jobs with the pids of their shims."""
    found = []
    for path in sorted((jobs.service.data_dir / "jobs").glob("*/process.json")):
        try:
            name = json.loads(path.with_name("order.json").read_text())["job"]
            found.append((name, json.loads(path.read_text())["pid"]))
        except FileNotFoundError:
            continue  # it ended meanwhile
    return found


def runner_below(shim: int) -> int | None:
    try:
        return next((child.pid for child in psutil.Process(shim).children()), None)
    except psutil.NoSuchProcess:
        return None


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_jobs_in_a_storm_end_right_and_once(jobs: Jobs, seed: int) -> None:
    names = []
    for number in range(JOBS):
        # The odd ones begin again from nothing.
        name = f"storm-{seed}-{number}"
        resumes = {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/storm/{name}"}}
        again = {"RetryStrategy": {"MaximumRetryAttempts": 30}}
        options = again if number % 2 else resumes
        metrics = {"MetricDefinitions": [{"Name": "sum", "Regex": "sum=([0-9]+);"}]}
        environment = {"STEPS": str(STEPS)}
        jobs.create(COUNTING, name=name, algorithm=metrics, Environment=environment, **options)
        names.append(name)
    storm = Storm(jobs, seed)
    storm.rage(STORM_S)
    for name in names:
        until(lambda name=name: status_of(jobs, name) in ENDED, 120)
        check_ended_right(jobs, name, storm.hits[name])
    listed = jobs.sagemaker.list_training_jobs(NameContains=f"storm-{seed}-", MaxResults=100)
    assert len(listed["TrainingJobSummaries"]) == JOBS
    root = jobs.service.data_dir / "jobs"
    until(lambda: not list(root.iterdir()), 30)
    assert find_by_command(str(root)) == []


def check_ended_right(jobs: Jobs, name: str, hits: int) -> None:
    described = jobs.describe(name)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    moments = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert Counter(moments)["Completed"] == 1
    assert moments[-1] == "Completed"
    # Only those start again whose own processes were killed.
    told = [item["StatusMessage"] for item in described["SecondaryStatusTransitions"]]
    assert moments.count("Restarting") <= hits, told
    wanted = sum(range(STEPS))
    found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    assert json.loads(found["state.json"]) == {"step": STEPS, "sum": wanted, "name": name}
    assert [metric["Value"] for metric in described["FinalMetricDataList"]] == [wanted]
    assert f"sum={wanted};" in jobs.lines(name)


def status_of(jobs: Jobs, name: str) -> str:
    status: str = jobs.describe(name)["TrainingJobStatus"]
    return status


def test_a_job_killed_again_and_again_trains_to_the_same_bits(jobs: Jobs) -> None:
    steps = {"STEPS": str(300 + 100 * KILLS)}
    calm = jobs.create(TRAINING, Environment=steps)
    name = jobs.create(
        TRAINING,
        Environment=steps,
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/{CHECKPOINTS}"},
    )
    dice = random.Random(11)
    killed = 0
    while killed < KILLS:
        until(lambda: running_one(jobs, name) is not None, 60)
        if not FULL:  # of one kill it is wanted that there is something to go on from
            until(lambda: has_checkpoint(jobs), 60)
        time.sleep(dice.uniform(0.0, 12.0 if FULL else 1.0))
        shim = running_one(jobs, name)
        assert status_of(jobs, name) == "InProgress", f"ended after {killed} kills"
        pid = runner_below(shim) if shim is not None else None
        killed += pid is not None and kill(pid)
    found = {}
    for each in (calm, name):
        described = jobs.wait(each, 300)
        assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
        found[each] = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    assert found[name]["loss.txt"] == found[calm]["loss.txt"]
    assert found[name]["w.pt"] == found[calm]["w.pt"]
    moments = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert moments.count("Restarting") == KILLS
    begins = [int(line.split()[-1]) for line in jobs.lines(name) if line.startswith("begins at")]
    assert max(begins) > 0, "no attempt went on from a checkpoint"


def running_one(jobs: Jobs, name: str) -> int | None:
    return dict(running(jobs)).get(name)


def has_checkpoint(jobs: Jobs) -> bool:
    return bool(jobs.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{CHECKPOINTS}/")["KeyCount"])
