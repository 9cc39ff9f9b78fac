"""Metrics in lines: exactly what Python's re finds, without ever holding anybody up."""

from __future__ import annotations

import re

import pytest

from ridgeline_service.training.finding import PATIENCE_LINES, SEARCHED
from ridgeline_service.training.order import MetricDefinition
from ridgeline_service.training.searching import MetricSearch

LOSS = MetricDefinition("loss", r"loss=([^;]+);")
RATE = MetricDefinition("rate", r"(\d+) rows/s")
ENDLESS = MetricDefinition("endless", "(a|aa)+$|end=([0-9.]+)")


def silent(line: str) -> None:
    raise AssertionError(line)


def found_in(definitions: list[MetricDefinition], *lines: str) -> list[float]:
    search = MetricSearch(definitions, silent)
    for line in lines:
        search.add(line, 0)
    search.close()
    return [each.value for each in search.take_fresh()]


def test_the_last_value_of_each_metric_counts() -> None:
    search = MetricSearch([LOSS, RATE, MetricDefinition("absent", "(x)")], silent)
    lines = ("12 rows/s", "loss=0.5; 10 rows/s", "loss=0.25;", "loss=nan;", "loss=abc;")
    for at, line in enumerate((*lines, "loss=inf;", "loss=1e300;")):
        search.add(line, at)
    search.close()
    assert [(m.name, m.value, m.at) for m in search.metrics] == [
        ("loss", 0.25, 2),
        ("rate", 10.0, 1),
    ]
    assert [m.value for m in search.take_fresh()] == [12.0, 0.5, 10.0, 0.25]
    assert search.take_fresh() == []


@pytest.mark.parametrize(
    "expression",
    ["time{s}=([0-9.]+)", "{e}=([0-9.]+)", "x{i<=1}=([0-9.]+)", "(?P<v>[0-9.]+)s$", "é=([0-9]+)"],
)
def test_an_expression_means_what_python_reads_in_it(expression: str) -> None:
    line = "time{s}=1.5 {e}=2.5 x{i<=1}=3.5 é=4 tim=9 5.5s"
    found = re.search(expression, line)
    assert found is not None
    assert found_in([MetricDefinition("time", expression)], line) == [float(found[1])]


def test_an_expression_that_takes_for_ever_costs_a_few_lines_and_is_told_of() -> None:
    said: list[str] = []
    search = MetricSearch([ENDLESS, LOSS], said.append)
    search.add("a" * 60 + "! loss=2;", 0)
    search.add("loss=0.5;", 0)
    for _ in range(PATIENCE_LINES):
        search.add("a" * 60 + "! loss=3;", 0)
    search.close(wait_s=60.0)
    assert [each.value for each in search.take_fresh()] == [2.0, 0.5] + [3.0] * PATIENCE_LINES
    left_out, given_up = said
    assert "'endless': its Regex took more than" in left_out
    assert "'endless' is not looked for any more" in given_up


def test_the_end_waits_for_no_search_and_says_what_was_left_out() -> None:
    said: list[str] = []
    search = MetricSearch([ENDLESS], said.append)
    for _ in range(70):
        search.add("a" * 60 + "!", 0)
    search.close(wait_s=0.0)
    search.close(wait_s=0.0)
    assert said == [
        "[metrics were not looked for in 70 lines, which came faster than they could be searched]"
    ]


def test_the_newest_lines_are_searched_where_too_many_wait() -> None:
    said: list[str] = []
    search = MetricSearch([LOSS], said.append, most_waiting=10)
    search.add("a line of more characters than may wait, loss=8;", 0)
    search.add("loss=9;", 0)
    search.close()
    assert [each.value for each in search.take_fresh()] == [9.0]
    assert "metrics were not looked for in 1 lines" in said[0]


def test_no_part_of_a_value_is_taken_for_the_value() -> None:
    before = "y" * (SEARCHED - 8)
    assert found_in([LOSS], before + "loss=12345;") == []
    plain = MetricDefinition("loss", ".*loss=([0-9.]+).*")
    assert found_in([plain], before + "loss=12345", before + "loss=123") == [123.0]
    assert found_in([plain], before + "loss=12" + "z" * 60_000) == [12.0]
    assert found_in([plain], "y" * SEARCHED + "loss=0.5") == []


def test_a_search_whose_process_cannot_work_says_so_once() -> None:
    said: list[str] = []
    search = MetricSearch([MetricDefinition("bad", "(")], said.append)
    for _ in range(3):
        search.add("line", 0)
    search.close()
    [line] = said
    assert "metrics are not looked for any more" in line
