"""A transform job while its processes die: every record is answered, none twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
from ridgeline_jobs import ENDED, running_jobs
from ridgeline_testing import until
from ridgeline_transforms import Transforms, doubled, numbered

from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor.state import read_state

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not os.environ.get("RIDGELINE_CHAOS"), reason="slow: `make chaos` runs it"),
]
FILES, RECORDS, CONCURRENT = 3, 60, 3
VICTIMS = ("control", "objects", "runner", "shim", "server", "server")


@pytest.fixture(scope="module")
def transforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transforms]:
    with running_jobs(tmp_path_factory.mktemp("transforms") / "data") as running:
        found = Transforms(running)
        found.model("doubles")
        for number in range(FILES):
            running.put(f"storm/{number}.csv", numbered(RECORDS))
        yield found


def strike(transforms: Transforms, victim: str) -> bool:
    """SIGKILL one process, if there is such a one at the moment."""
    data_dir = transforms.jobs.service.data_dir
    state = read_state(DataDir(data_dir))
    assert state is not None
    if victim in state.children:
        os.kill(state.children[victim].pid, signal.SIGKILL)
        return True
    for path in (data_dir / "jobs").glob("*/process.json"):
        try:
            shim = psutil.Process(json.loads(path.read_text())["pid"])
            below = shim.children(recursive=True)
            # Below the runner: the sandbox's tool, its first process, the model server.
            chosen = {"shim": [shim], "runner": below[:1], "server": below[3:4]}[victim]
            for process in chosen:
                process.kill()
                return True
        except (OSError, psutil.NoSuchProcess):
            continue
    return False


@pytest.mark.parametrize("seed", range(10))
def test_no_record_is_lost_or_doubled_in_a_storm(transforms: Transforms, seed: int) -> None:
    dice = random.Random(seed)
    name = transforms.create(
        "doubles",
        "storm/",
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=CONCURRENT,
        Environment={"TAKES_S": "0.03"},
    )
    struck: Counter[str] = Counter()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(dice.uniform(0.3, 2.5))
        until(lambda: transforms.describe(name)["TransformJobStatus"], 30)
        if transforms.describe(name)["TransformJobStatus"] in ENDED:
            break
        victim = dice.choice(VICTIMS)
        struck[victim] += strike(transforms, victim)
    outputs = transforms.completed(name, 120)
    assert outputs == {f"{number}.csv.out": doubled(RECORDS) for number in range(FILES)}
    # Only what was under way at a kill may have been asked for again.
    asked = Counter(transforms.asked(name))
    kills = sum(struck.values())
    assert sum(asked.values()) <= FILES * RECORDS + kills * (CONCURRENT + 1), struck
    assert list((transforms.jobs.service.data_dir / "job-work").glob("*")) == []


def test_a_job_that_down_interrupted_goes_on(transforms: Transforms) -> None:
    service = transforms.jobs.service
    state = read_state(DataDir(service.data_dir))
    assert state is not None
    name = transforms.create(
        "doubles",
        "storm/",
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=CONCURRENT,
        Environment={"TAKES_S": "0.05"},
    )
    until(lambda: len(transforms.asked(name)) >= RECORDS, 60)
    service.cli("down")
    service.cli("up", "--detach", "--port", str(state.port))
    outputs = transforms.completed(name, 60)
    assert outputs == {f"{number}.csv.out": doubled(RECORDS) for number in range(FILES)}
    assert len(transforms.asked(name)) <= FILES * RECORDS + CONCURRENT
