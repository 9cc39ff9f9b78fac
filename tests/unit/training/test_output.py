"""Lines from output as it comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.training.output import MAX_LINE, TAIL_LINES, Output


def ignored(line: str) -> None:
    """Nobody takes it."""


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(0, 999), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    end=st.sampled_from([b"\n", b"\r", b"\r\n"]),
)
def test_no_line_is_lost_however_the_output_is_cut(
    values: list[int], cuts: list[int], end: bytes
) -> None:
    data = end.join(b"loss=%d;" % value for value in values)
    lines: list[str] = []
    output = Output(lines.append)
    for start, stop in pairwise([0, *sorted(cuts), max([len(data), *cuts])]):
        output.feed(data[start:stop])
    output.close()
    assert lines == output.tail == [f"loss={value};" for value in values]


def test_the_tail_is_bounded_and_bytes_may_be_anything() -> None:
    output = Output(ignored)
    output.feed(b"".join(b"line %d\n\n" % number for number in range(500)))
    assert output.tail[-1] == "line 499"
    assert len(output.tail) <= TAIL_LINES
    output.feed(b"\xff" * (3 * MAX_LINE))
    output.close()
    assert all(len(line) <= MAX_LINE for line in output.tail)


def test_a_line_that_is_too_long_is_cut_between_words() -> None:
    lines: list[str] = []
    output = Output(lines.append)
    for end in (b"", b"\n"):
        output.feed(b"x" * (MAX_LINE - 3) + b" 12345 rows/s" + end)
        output.feed(b"\n")
    assert lines == ["x" * (MAX_LINE - 3), " 12345 rows/s"] * 2


def test_what_came_by_standard_error_is_told_apart() -> None:
    lines: list[str] = []
    output = Output(lines.append)
    output.feed(b"epoch 1 lo")
    output.feed(b"no such file\nloss=", is_error=True)
    output.feed(b"ss=0.5;\n")
    output.feed(b"0.25;", is_error=True)
    output.close()
    assert lines == output.tail == ["no such file", "epoch 1 loss=0.5;", "loss=0.25;"]
    assert output.errors == ["no such file", "loss=0.25;"]
