"""Faults on demand: when they happen, what they are called, and what a service sees of them."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.errors import InvalidInput
from ridgeline_backends.base import LoadSpec
from ridgeline_backends.engine import EngineOutput, FinishReason, LLMEngine, SamplingParams
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.neuron.backend import NeuronBackend
from ridgeline_backends.neuron.faults import FAULT_VARIABLE, Faults, NeuronRuntimeError
from ridgeline_backends.neuron.runner import NeuronRunner


def outcomes(faults: Faults, steps: int, cores: int = 2) -> tuple[list[int], list[float]]:
    """The status of each step, 0 for one that passes, and what was slept."""
    slept: list[float] = []
    found = []
    for _ in range(steps):
        try:
            faults.step(cores, slept.append)
            found.append(0)
        except NeuronRuntimeError as error:
            found.append(error.status)
    return found, slept


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", [0, 0, 0, 0, 0]),
        ("hbm-error", [1201, 101, 101, 101, 101]),
        ("core-error:after=2", [0, 0, 1202, 101, 101]),
        ("link-down:after=1", [0, 1200, 101, 101, 101]),
        ("numerical-error:every=2", [1003, 0, 1003, 0, 1003]),
        ("numerical-error:after=1", [0, 1003, 0, 0, 0]),
    ],
)
def test_steps_fail_as_asked_and_broken_hardware_stays_broken(
    asked: str, expected: list[int]
) -> None:
    assert outcomes(Faults.read({FAULT_VARIABLE: asked}), 5) == (expected, [])


def test_a_hang_lasts_until_the_runtime_gives_up() -> None:
    environment = {FAULT_VARIABLE: "core-hang:after=1", "NEURON_RT_EXEC_TIMEOUT": "7"}
    assert outcomes(Faults.read(environment), 3) == ([0, 5, 0], [7.0])


def test_one_core_has_no_link_that_could_fail() -> None:
    assert outcomes(Faults("link-down"), 2, cores=1) == ([0, 0], [])


def test_what_every_further_step_ends_with_is_known() -> None:
    lost, passing = Faults("core-error"), Faults("numerical-error")
    assert not lost.broken
    for one in (lost, passing):
        outcomes(one, 1)
    assert "NRT_EXEC_UNIT_UNRECOVERABLE status=101" in lost.broken
    assert not passing.broken
    assert not lost.instead("", after=0, every=0, cores=2).broken
    with pytest.raises(InvalidInput, match="one core alone, which has no link"):
        lost.instead("link-down", after=0, every=0, cores=1)


def test_an_unknown_fault_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput) as refused:
        Faults.read({FAULT_VARIABLE: "hbm-eror"})
    assert "Did you mean 'hbm-error'?" in (refused.value.hint or "")
    with pytest.raises(InvalidInput, match="after=x"):
        Faults.read({FAULT_VARIABLE: "hbm-error:after=x"})


def test_a_service_sees_the_runtimes_own_words(
    make_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, device = make_llama(), NeuronBackend("inf2.xlarge")
    plan = device.plan(read_json(model / "config.json"), LoadSpec(max_model_len=64))
    artifact = device.compile(model, plan)
    monkeypatch.setenv(FAULT_VARIABLE, "hbm-error:after=1")
    runner = device.load(artifact)
    assert isinstance(runner, NeuronRunner)
    engine = LLMEngine(runner)
    news: list[EngineOutput] = []
    engine.submit("a", [1, 2, 3], SamplingParams(max_tokens=4), news.append)
    while engine.step():
        pass
    assert news[-1].finish_reason is FinishReason.ERROR
    assert "NRT_EXEC_HW_ERR_HBM_UE status=1201" in (news[-1].error or "")
    monkeypatch.setenv(FAULT_VARIABLE, "allocation-failure")
    with pytest.raises(NeuronRuntimeError, match="status=4 message='Allocation Failure'"):
        device.load(artifact)
