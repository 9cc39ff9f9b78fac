"""A model's layers as patterns that repeat: nothing is lost, and little is written out."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from ridgeline_backends.neuron.builders.architecture import Run, runs_of

LAYERS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@given(kinds=LAYERS)
def test_runs_are_the_layers_in_order(kinds: list[int]) -> None:
    again: list[int] = []
    for run in runs_of(kinds):
        assert run.first == len(again)
        again += kinds[run.first : run.first + run.period] * run.repeats
    assert again == kinds
    written = sum(1 + run.period for run in runs_of(kinds))
    assert written <= 2 * len(list(groupby(kinds)))


def test_a_few_layers_before_and_behind_do_not_write_all_out() -> None:
    """As of DeepSeek-V3, whose first three are dense, and Gemma 3, whose pattern breaks off."""
    assert runs_of([0] * 3 + [1] * 58) == [Run(0, 1, 3), Run(3, 1, 58)]
    assert runs_of([0, 0, 0, 0, 0, 1] * 4 + [0, 0]) == [Run(0, 6, 4), Run(24, 1, 2)]
    assert runs_of([0, 1] * 16) == [Run(0, 2, 16)]
    assert runs_of([0, 0, 0, 1, 0, 1, 0, 1]) == [Run(0, 1, 2), Run(2, 2, 3)]
    assert runs_of([0] * 80) == [Run(0, 1, 80)]
