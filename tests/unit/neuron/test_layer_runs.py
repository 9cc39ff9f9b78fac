"""A model's layers as patterns that repeat: nothing is lost, and little is written out."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from ridgeline_backends.neuron.builders.architecture import Run, runs_of
from ridgeline_backends.neuron.planner import Target, make_plan
from ridgeline_backends.neuron.planning.market import Market

LAYERS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


def runs(kinds: list[int]) -> list[Run]:
    return list(runs_of(tuple(kinds)))


@given(kinds=LAYERS)
def test_runs_are_the_layers_in_order(kinds: list[int]) -> None:
    again: list[int] = []
    for run in runs(kinds):
        assert run.first == len(again)
        again += kinds[run.first : run.first + run.period] * run.repeats
    assert again == kinds
    written = sum(1 + run.period for run in runs(kinds))
    assert written <= 2 * len(list(groupby(kinds)))


def test_a_few_layers_before_and_behind_do_not_write_all_out() -> None:
    """As of DeepSeek-V3, whose first three are dense, and Gemma 3, whose pattern breaks off."""
    assert runs([0] * 3 + [1] * 58) == [Run(0, 1, 3), Run(3, 1, 58)]
    assert runs([0, 0, 0, 0, 0, 1] * 4 + [0, 0]) == [Run(0, 6, 4), Run(24, 1, 2)]
    assert runs([0, 1] * 16) == [Run(0, 2, 16)]
    assert runs([0, 0, 0, 1, 0, 1, 0, 1]) == [Run(0, 1, 2), Run(2, 2, 3)]
    assert runs([0] * 80) == [Run(0, 1, 80)]


def test_a_plan_looks_for_patterns_once() -> None:
    """For each of its hundreds of programs it took most of 6 s of a plan of 126 layers."""
    config = {
        "model_type": "llama",
        "hidden_size": 512,
        "num_hidden_layers": 37,
        "num_attention_heads": 8,
        "intermediate_size": 1024,
        "vocab_size": 1000,
    }
    before = runs_of.cache_info().misses
    make_plan(config, Target(prompt=128, answer=64), Market(only=("inf2.xlarge",)))
    assert runs_of.cache_info().misses == before + 1
