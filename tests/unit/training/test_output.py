"""Metrics and last lines from output as it comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.training.order import MetricDefinition
from ridgeline_service.training.output import MAX_LINE, PATIENCE_LINES, SEARCHED, TAIL_LINES, Output

LOSS = MetricDefinition("loss", r"loss=([^;]+);")
RATE = MetricDefinition("rate", r"(\d+) rows/s")


def silent(line: str) -> None:
    raise AssertionError(line)


def test_the_last_value_of_each_metric_counts() -> None:
    output = Output([LOSS, RATE, MetricDefinition("absent", "(x)")], lambda: 7, silent)
    output.feed(b"loss=0.5; 10 rows/s\nloss=0.25;\nloss=nan;\nloss=inf;\nloss=abc;\nloss=1e300;\n")
    assert [(m.name, m.value, m.at) for m in output.metrics] == [
        ("loss", 0.25, 7),
        ("rate", 10.0, 7),
    ]
    assert [m.value for m in output.take_fresh()] == [0.5, 10.0, 0.25]
    assert output.take_fresh() == []


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(0, 999), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    end=st.sampled_from([b"\n", b"\r", b"\r\n"]),
)
def test_no_value_is_lost_however_the_output_is_cut(
    values: list[int], cuts: list[int], end: bytes
) -> None:
    data = end.join(b"loss=%d;" % value for value in values)
    output = Output([LOSS], lambda: 0, silent)
    for start, stop in pairwise([0, *sorted(cuts), max([len(data), *cuts])]):
        output.feed(data[start:stop])
    output.close()
    assert [metric.value for metric in output.take_fresh()] == values
    assert output.tail == [f"loss={value};" for value in values]


def test_the_tail_is_bounded_and_bytes_may_be_anything() -> None:
    output = Output([], lambda: 0, silent)
    output.feed(b"".join(b"line %d\n\n" % number for number in range(500)))
    assert output.tail[-1] == "line 499"
    assert len(output.tail) <= TAIL_LINES
    output.feed(b"\xff" * (3 * MAX_LINE))
    output.close()
    assert all(len(line) <= MAX_LINE for line in output.tail)


def test_what_came_by_standard_error_is_told_apart() -> None:
    output = Output([LOSS], lambda: 0, silent)
    output.feed(b"epoch 1 lo")
    output.feed(b"no such file\nloss=", is_error=True)
    output.feed(b"ss=0.5;\n")
    output.feed(b"0.25;", is_error=True)
    output.close()
    assert output.tail == ["no such file", "epoch 1 loss=0.5;", "loss=0.25;"]
    assert output.errors == ["no such file", "loss=0.25;"]
    assert [metric.value for metric in output.metrics] == [0.25]


def test_a_regex_that_takes_for_ever_costs_a_few_lines_and_is_told_of() -> None:
    said: list[str] = []
    definitions = [MetricDefinition("endless", "(a|aa)+$|end=([0-9.]+)"), LOSS]
    output = Output(definitions, lambda: 0, said.append)
    output.feed(b"a" * 60 + b"! loss=2;\n")
    output.feed(b"loss=0.5;\n")
    assert [metric.value for metric in output.take_fresh()] == [2.0, 0.5]
    [left_out] = said
    assert "'endless': its Regex took more than" in left_out
    for _ in range(PATIENCE_LINES):
        output.feed(b"a" * 60 + b"! loss=3;\n")
    assert len(said) == 2
    assert "'endless' is not looked for any more" in said[1]
    assert [metric.value for metric in output.take_fresh()] == [3.0] * PATIENCE_LINES


def test_metrics_are_looked_for_at_the_beginning_of_a_line() -> None:
    greedy = MetricDefinition("loss", ".*loss=([0-9.]+).*")
    output = Output([greedy], lambda: 0, silent)
    output.feed(
        (b"x" * 60_000 + b"\n") * 6 + b"y" * (SEARCHED - 8) + b"loss=0.5" + b"z" * 9 + b"\n"
    )
    assert [metric.value for metric in output.take_fresh()] == [0.5]
    output.feed(b"y" * SEARCHED + b"loss=0.5\n")
    assert output.take_fresh() == []
