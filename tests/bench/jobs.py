"""What jobs cost beside bare scripts: start, running, log, queue, two workers, fine-tuning.

    .venv/bin/python tests/bench/jobs.py                  all, in about ten minutes
    .venv/bin/python tests/bench/jobs.py start queue      some

Whatever is compared runs in turns. Writes .cache/bench/jobs.json, which report.py reads; figures
of what was not measured this time stay there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from machine import describe_machine
from recipes import COMPARISONS, EXAMPLES, bare
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import REPOSITORY, shell_environment, until

from ridgeline import Session, ZooEstimator
from ridgeline._progress import SilentProgress

RESULTS = REPOSITORY / ".cache" / "bench" / "jobs.json"
MODEL = "smollm2-135m-instruct"
SAYS_WHEN = "import time; print(f'at={time.time()};', flush=True)"
LINES = 200_000
PRINTS = f"""
import time
began = time.monotonic()
for number in range({LINES}):
    print(f"line {{number}} of a script that says a lot")
print(f"seconds={{time.monotonic() - began}};", flush=True)
"""
COMPUTES = """
import sys, time
began = time.monotonic()
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256)
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
data = torch.randn(512, 256)
for step in range(int(sys.argv[-1])):
    optimizer.zero_grad()
    loss = (model(data) - data).square().mean()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step={step} loss={loss.item():.5f};", flush=True)
print(f"seconds={time.monotonic() - began};", flush=True)
"""
STEPS = 900
DDP = """
import json, os, time
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
model = DistributedDataParallel(torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
data = torch.randn(16, 64, 256)
share = data[rank * 16 // world : (rank + 1) * 16 // world]
for step in range(25):
    if step == 5:
        began = time.monotonic()
    optimizer.zero_grad()
    (model(share) - share).square().mean().backward()
    optimizer.step()
if rank == 0:
    print(f"seconds={(time.monotonic() - began) / 20};", flush=True)
dist.destroy_process_group()
"""


def main() -> None:
    measures: dict[str, Callable[[Jobs], dict[str, Any]]] = {
        "start": starts,
        "overhead": overhead,
        "queue": queue,
        "lines": lines,
        "workers": workers,
        "tuning": tuning,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", choices=[[], *measures], help="all, if none")
    wanted = parser.parse_args().measures or list(measures)
    report = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    report["machine"] = asdict(describe_machine())
    report["date"] = datetime.date.today().isoformat()
    with (
        tempfile.TemporaryDirectory(prefix="ridgeline-jobs-") as folder,
        running_jobs(Path(folder) / "data", max_instances=16) as jobs,
    ):
        for name in wanted:
            report[name] = measures[name](jobs)
            print(json.dumps({name: report[name]}), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1))


def starts(jobs: Jobs, rounds: int = 7) -> dict[str, Any]:
    """Seconds from the call of CreateTrainingJob to the script's first line: of jobs on their own,
    and of jobs that find a warm pool. The former ask for another volume: any job of its kind may
    take a pool."""
    code = {"sagemaker_submit_directory": json.dumps(jobs.code("start", {"train.py": SAYS_WHEN}))}
    warm = {"ResourceConfig": {**RESOURCES, "KeepAlivePeriodInSeconds": 120}}
    cold = {"ResourceConfig": {**RESOURCES, "VolumeSizeInGB": RESOURCES["VolumeSizeInGB"] + 1}}

    def once(**changes: Any) -> float:
        name = jobs.create(SAYS_WHEN, hyperparameters=code, **changes)
        ended(jobs, name)
        created: datetime.datetime = jobs.describe(name)["CreationTime"]
        return said(jobs, name, "at") - created.timestamp()

    once(**cold)
    once(**warm)
    found = [(once(**cold), once(**warm)) for _ in range(rounds)]
    return {"cold_s": [alone for alone, _ in found], "warm_s": [pooled for _, pooled in found]}


def overhead(jobs: Jobs, rounds: int = 5) -> dict[str, Any]:
    """The same script as a process and as a job: its own seconds, and those of the whole."""
    [python] = Path(shell_environment()["RIDGELINE_CACHE"]).glob(
        "environments/pytorch-*/bin/python"
    )
    bare, job, whole = [], [], []
    for _ in range(rounds):
        done = subprocess.run(
            [str(python), "-c", COMPUTES, str(STEPS)],
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        bare.append(value(done.stdout, "seconds"))
        began = time.monotonic()
        name = jobs.create(COMPUTES, hyperparameters={"steps": str(STEPS)})
        ended(jobs, name, every_s=2.0)
        whole.append(time.monotonic() - began)
        job.append(said(jobs, name, "seconds"))
    return {"bare_s": bare, "job_s": job, "whole_job_s": whole}


def queue(jobs: Jobs, count: int = 100) -> dict[str, Any]:
    """Seconds until all of that many short jobs, created at once, are over."""
    code = {"sagemaker_submit_directory": json.dumps(jobs.code("queue", {"train.py": SAYS_WHEN}))}
    began = time.monotonic()
    names = [jobs.create(SAYS_WHEN, hyperparameters=code) for _ in range(count)]
    created = time.monotonic() - began
    for name in names:
        ended(jobs, name)
    return {"jobs": count, "created_s": created, "seconds": time.monotonic() - began}


def lines(jobs: Jobs) -> dict[str, Any]:
    """Lines a second that a script can print; all of them are in the log afterwards."""
    name = jobs.create(PRINTS)
    ended(jobs, name)
    began = time.monotonic()
    kept = sum(line.startswith("line ") for line in jobs.lines(name))
    if kept != LINES:
        raise RuntimeError(f"{LINES - kept} of {LINES} lines were lost")
    return {
        "lines": LINES,
        "seconds": said(jobs, name, "seconds"),
        "read_s": time.monotonic() - began,
    }


def workers(jobs: Jobs, rounds: int = 3) -> dict[str, Any]:
    """Seconds of a step with the same global batch: one process with all threads, and two."""
    torchrun = {"sagemaker_torch_distributed_enabled": "true"}
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, seconds in found.items():
            name = jobs.create(
                DDP,
                hyperparameters=torchrun,
                ResourceConfig={**RESOURCES, "InstanceCount": count},
            )
            ended(jobs, name)
            seconds.append(said(jobs, name, "seconds"))
    return {"one_process_s": found[1], "two_processes_s": found[2]}


def tuning(jobs: Jobs, rounds: int = 2, steps: int = 8) -> dict[str, Any]:
    """Tokens a second of the recipe as a job, and of a bare script of trl."""
    session = Session(data_dir=jobs.service.data_dir, progress=SilentProgress())
    values = {"max_steps": steps, "general_share": 0, "dtype": "fp32"}
    same = replace(COMPARISONS["sft"], steps=steps)
    job, script = [], []
    for _ in range(rounds):
        estimator = ZooEstimator(MODEL, hyperparameters=values, sagemaker_session=session)
        estimator.fit({"training": str(EXAMPLES / same.training)}, logs=False)
        assert estimator.latest_training_job is not None
        found = "\n".join(jobs.lines(estimator.latest_training_job.name))
        job.append(float(re.findall(r"train_tokens_per_second=([0-9.]+)", found)[-1]))
        script.append(bare("sft", same)["train_tokens_per_second"])
    return {"job_tokens_per_s": job, "bare_tokens_per_s": script}


RESOURCES: Mapping[str, Any] = {
    "InstanceType": "ml.m5.large",
    "InstanceCount": 1,
    "VolumeSizeInGB": 5,
}


def ended(jobs: Jobs, name: str, every_s: float = 0.2) -> None:
    """Wait for it. Being asked costs the service time too."""
    until(lambda: jobs.describe(name)["TrainingJobStatus"] != "InProgress", 300, every_s)
    described = jobs.describe(name)
    if described["TrainingJobStatus"] != "Completed":
        raise RuntimeError(described.get("FailureReason", described["TrainingJobStatus"]))


def said(jobs: Jobs, name: str, what: str) -> float:
    return value("\n".join(jobs.lines(name)[-1000:]), what)


def value(text: str, what: str) -> float:
    found = re.search(rf"{what}=([0-9.e-]+);", text)
    if found is None:
        raise RuntimeError(f"no {what} in the output: {text[-500:]}")
    return float(found[1])


if __name__ == "__main__":
    main()
