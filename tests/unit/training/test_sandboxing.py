"""The environment of a job's script: what is promised, what is recommended, whose word counts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.shim import call
from ridgeline_service.training.order import Order
from ridgeline_service.training.sandboxing import Packages, command_line, environment

PACKAGES = Packages(Path("/envs/e/bin/python"))


def of(order: Order, **variables: str) -> dict[str, str]:
    return environment(replace(order, environment=variables), PACKAGES, {"SM_HOSTS": "[]"}, {})


def test_the_user_s_word_counts_for_what_is_recommended(order: Order) -> None:
    assert of(order)["GOMP_SPINCOUNT"] == "1000"
    alone = replace(order, confinement=replace(order.confinement, alone=True))
    assert of(alone)["GOMP_SPINCOUNT"] == "10000"
    assert of(order, GOMP_SPINCOUNT="300000")["GOMP_SPINCOUNT"] == "300000"
    own = of(order, OMP_NUM_THREADS="3", CURRENT_HOST="other")
    assert own["OMP_NUM_THREADS"] == "3"
    assert own["CURRENT_HOST"] == "algo-1"


def test_the_user_s_programs_are_found_after_the_runtime_s(order: Order) -> None:
    path = of(order, PATH="/opt/ml/code/tools:/usr/local/cuda/bin")["PATH"].split(":")
    own = path.index("/opt/ml/code/tools")
    assert path[own + 1] == "/usr/local/cuda/bin"
    assert path.index("/envs/e/bin") < own < path.index("/usr/bin")
    assert "" not in of(order)["PATH"].split(":")


def test_aws_clients_in_the_script_find_the_region(order: Order) -> None:
    found = of(order)
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "us-east-1"
    assert of(order, AWS_DEFAULT_REGION="eu-west-1")["AWS_DEFAULT_REGION"] == "eu-west-1"


def test_torchrun_without_a_port_meets_at_one_of_its_own(order: Order) -> None:
    ports = {
        of(replace(order, arn=f"{order.arn}-{number}"))["PET_MASTER_PORT"] for number in range(8)
    }
    assert len(ports) == 8
    assert "29500" not in ports


@pytest.mark.skipif(sandbox.capability().tool is None, reason="no sandbox on this machine")
def test_what_a_script_installs_it_can_import_at_once(order: Order, tmp_path: Path) -> None:
    """As the SDK's @remote does. The interpreter has looked for other modules before."""
    code = """
import os, sys
try:
    import absent
except ImportError:
    pass
folder = os.path.join(os.environ["PIP_PREFIX"], "lib", "python%d.%d" % sys.version_info[:2])
os.makedirs(os.path.join(folder, "site-packages"), exist_ok=True)
with open(os.path.join(folder, "site-packages", "installed.py"), "w") as file:
    file.write("print('imported')")
import installed
"""
    packages = Packages(Path(sys.executable))
    (tmp_path / "ml" / "code").mkdir(parents=True)
    job = replace(order, confinement=replace(order.confinement, tool=sandbox.require()))
    command = command_line(
        job, (sys.executable, "-c", code), packages, tmp_path / "scratch", tmp_path / "ml"
    )
    started = call(command, environment(job, packages, {}, {}))
    try:
        done = subprocess.run(
            started.argv,
            env=started.environment,
            pass_fds=started.files,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        started.close()
    assert done.stdout == "imported\n", done.stderr
