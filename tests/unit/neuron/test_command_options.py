"""Options of the commands of simulated devices: what is taken, refused, and said of a choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput, NotFound
from ridgeline_backends.neuron.commands import app, watch
from ridgeline_backends.neuron.commands.compile import compile_model

NEURON = app
COMPILE = Typer()
COMPILE.command()(compile_model)
SIMULATE = ("simulate", "smollm2-135m", "--instance", "inf2.xlarge", "--rps", "1")


@pytest.mark.parametrize(
    ("command", "given"),
    [
        (COMPILE, ("smollm2-135m", "--instance", "inf2.xlarge", "--lnc", "0")),
        (NEURON, (*SIMULATE, "--tp", "0")),
        (NEURON, (*SIMULATE, "--lnc", "0")),
        (NEURON, ("profile", "smollm2-135m", "--tp", "0")),
        (NEURON, ("ls", "--instance", "inf2.xlarge", "--lnc", "0")),
    ],
)
def test_a_count_of_0_is_not_taken_for_the_default(command: Typer, given: tuple[str, ...]) -> None:
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 2
    assert "Invalid value for" in done.output


def test_a_rate_that_is_no_finite_number_is_refused() -> None:
    done = CliRunner().invoke(NEURON, [*SIMULATE[:-1], "inf"])
    assert isinstance(done.exception, InvalidInput), done.output
    assert "--rps" in done.exception.message


def test_ls_refuses_an_lnc_of_no_instance_type() -> None:
    done = CliRunner().invoke(NEURON, ["ls", "--lnc", "2"])
    assert isinstance(done.exception, InvalidInput)
    assert "--instance" in done.exception.hint


def test_memory_is_a_number_in_json() -> None:
    done = CliRunner().invoke(NEURON, ["ls", "--json"])
    found = {one["instance_type"]: one["memory_gb"] for one in json.loads(done.stdout)}
    assert found["inf1.xlarge"] == 8
    assert " 8 " in next(
        line for line in CliRunner().invoke(NEURON, ["ls"]).stdout.splitlines()
        if line.startswith("inf1.xlarge")
    )  # fmt: skip


def test_compile_lists_the_instance_types_that_it_can_compile_for() -> None:
    done = CliRunner().invoke(COMPILE, ["smollm2-135m", "--instance", "g5.xlarge"])
    assert isinstance(done.exception, InvalidInput)
    said = str(done.exception)
    assert "g5.xlarge" in said
    assert "inf2.xlarge" in said
    assert "inf1." not in said


def test_compile_says_what_was_chosen_and_whose_the_figures_are(tmp_path: Path) -> None:
    given = ["smollm2-135m", "--instance", "trn2.3xlarge", "--seq", "128", "--cache", str(tmp_path)]
    shown = CliRunner().invoke(COMPILE, given)
    assert shown.exit_code == 0, shown.output
    first = shown.stdout.splitlines()[0]
    assert first == (
        "smollm2-135m for 4 cores (TP 4) of trn2.3xlarge at LNC 2, batch 1, weights bf16. "
        "GFLOP and MB are those of each core."
    )
    found = json.loads(CliRunner().invoke(COMPILE, [*given, "--json"]).stdout)
    assert (found["instance_type"], found["tp"], found["lnc"]) == ("trn2.3xlarge", 4, 2)
    eight = json.loads(CliRunner().invoke(COMPILE, [*given, "--quantize", "int8", "--json"]).stdout)
    assert (found["quantize"], eight["quantize"]) == (None, "int8")
    weights = [one["core_bytes"]["model constants"] for one in (eight, found)]
    assert weights[0] < 0.8 * weights[1]


class _Service:
    """A service with one endpoint, `cpu`, whose replica is no simulated device."""

    def metrics(self, *path: str) -> str:
        return "[]"

    def get(self, *path: str) -> Any:
        if path != ("endpoints", "cpu"):
            raise NotFound(f"There is no endpoint {path[-1]}.")
        return {"replicas": []}


class _Session:
    api = _Service()


@pytest.mark.parametrize("command", ["top", "monitor"])
@pytest.mark.parametrize(
    ("endpoint", "says"), [("nosuch", "no endpoint nosuch"), ("cpu", "no replica")]
)
def test_an_endpoint_that_is_not_there_is_said_not_to_exist(
    monkeypatch: pytest.MonkeyPatch, command: str, endpoint: str, says: str
) -> None:
    monkeypatch.setattr(watch, "open_session", lambda _: _Session())
    done = CliRunner().invoke(NEURON, [command, endpoint, "--count", "1"])
    assert isinstance(done.exception, NotFound)
    assert says in done.exception.message


def test_a_period_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "open_session", lambda _: _Session())
    done = CliRunner().invoke(NEURON, ["top", "cpu", "--period", "inf"])
    assert isinstance(done.exception, InvalidInput)
    assert "--period" in done.exception.message


@pytest.mark.parametrize(("name", "suggested"), [("m5.large", False), ("inf2.xlrge", True)])
def test_only_a_name_that_is_near_is_suggested(name: str, suggested: bool) -> None:
    failed = CliRunner().invoke(NEURON, ["ls", "--instance", name]).exception
    assert isinstance(failed, NotFound)
    assert ("Did you mean" in failed.hint) == suggested
    assert "inf2.xlarge" in failed.hint
