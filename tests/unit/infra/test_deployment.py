"""What infra/ builds and starts the service with fits the rest of the repository."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()


def copied(stage: str) -> set[str]:
    """What a stage of the Dockerfile takes from the clone."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", stage, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def test_the_image_is_built_from_all_that_the_wheel_needs() -> None:
    build, final = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"]}
    needed |= set(project["project"]["license-files"])
    needed |= {package.partition("/")[0] for package in wheel["packages"]}
    # The hook's file has this name unless it says another.
    needed |= {hook.get("path", "hatch_build.py") for hook in wheel["hooks"].values()}
    assert needed <= copied(build)
    for source in copied(build) | copied(final):
        assert (ROOT / source).exists(), source
    assert " gcc " in build, "without a compiler the wheel has no kernels"
    assert "-c constraints.txt" not in final or "constraints.txt" in copied(final)


def test_what_a_killed_supervisor_leaves_is_there_for_the_next_one() -> None:
    """systemd would end the other processes too, and a command after the end would stop them."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "infra" / "ridgeline.service")
    service = unit["Service"]
    assert service["KillMode"] == "process"
    assert service["Restart"] == "on-failure"
    assert not {"ExecStop", "ExecStopPost"} & service.keys()
