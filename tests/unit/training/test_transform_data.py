"""Records, batches, filters, joins and the journal of transform jobs."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.training.transform.parts import Parts
from ridgeline_service.training.transform.records import BadInput, SplitType, batches
from ridgeline_service.training.transform.rows import BadRows, Filters, RowFilter, path_of


def bodies(
    data: bytes, split: SplitType = "Line", *, single: bool = False, most: int | None = 100
) -> list[bytes]:
    found = batches(io.BytesIO(data), split, single=single, max_bytes=most)
    return [batch.body for batch in found]


def test_lines_become_requests_one_by_one_or_as_many_as_fit() -> None:
    data = b"one\r\ntwo\n\nthree"
    assert bodies(data, single=True) == [b"one", b"two", b"three"]
    assert bodies(data) == [b"one\ntwo\nthree\n"]
    assert bodies(data, most=8) == [b"one\ntwo\n", b"three\n"]
    assert bodies(data, "None") == [data]
    assert bodies(b"", "None") == bodies(b"\n\n") == []
    with pytest.raises(BadInput, match="record 3 has 6 bytes"):
        bodies(data, most=5)


def recordio(payload: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)


def tfrecord(payload: bytes) -> bytes:
    return struct.pack("<QI", len(payload), 1) + payload + struct.pack("<I", 2)


@pytest.mark.parametrize(("split", "framed"), [("RecordIO", recordio), ("TFRecord", tfrecord)])
def test_binary_records_lose_their_frames_when_they_are_sent_alone(split, framed) -> None:  # type: ignore[no-untyped-def]
    payloads = [b"a", b"bcde", b"fghij"]
    data = b"".join(map(framed, payloads))
    assert bodies(data, split, single=True) == payloads
    assert bodies(data, split) == [data]
    with pytest.raises(BadInput, match="middle of a record"):
        bodies(data[:-3], split)


@settings(max_examples=60)
@given(
    lines=st.lists(
        st.binary(min_size=1, max_size=9).filter(
            lambda b: b.strip() and b"\n" not in b and b"\r" not in b
        )
    ),
    most=st.integers(10, 40),
)
def test_no_record_is_lost_or_doubled_by_grouping(lines: list[bytes], most: int) -> None:
    data = b"\n".join(lines)
    found = list(batches(io.BytesIO(data), "Line", single=False, max_bytes=most))
    assert b"".join(batch.body for batch in found) == b"".join(line + b"\n" for line in lines)
    assert [batch.index for batch in found] == list(range(len(found)))
    assert sum(batch.count for batch in found) == len(lines)
    assert all(len(batch.body) <= most for batch in found)


def filtered(
    filters: Filters, body: bytes, said: bytes, kind: str = "text/csv", told: str = ""
) -> tuple[bytes, bytes]:
    """What the model is sent, and what is kept of its answer."""
    rows = RowFilter(filters, kind, one_a_line=True)
    return rows.request(body), rows.answer(body, said, told or kind)


def test_columns_are_chosen_and_joined() -> None:
    join = Filters("$[1:]", "$[0,-1]", join=True)
    sent, kept = filtered(join, b"id1,1.5,2\nid2,3,4\n", b"0.5\n0.7\n")
    assert sent == b"1.5,2\n3,4"
    assert kept == b"id1,0.5\nid2,0.7"
    assert filtered(Filters("$[0]"), b'"a,b",2', b"1")[0] == b'"a,b"'


def test_fields_are_chosen_and_joined() -> None:
    body = b'{"id": 1, "x": [1, 2], "u": "\xc3\xa9"}\n{"id": 2, "x": [3, 4], "u": ""}'
    filters = Filters("$.x", "$['id','SageMakerOutput']", join=True)
    answers = b'{"score": 0.5}\n{"score": 0.25}\n'
    sent, kept = filtered(filters, body, answers, "application/jsonlines")
    assert sent == b"[1, 2]\n[3, 4]"
    assert [json.loads(line) for line in kept.splitlines()] == [
        {"id": 1, "SageMakerOutput": {"score": 0.5}},
        {"id": 2, "SageMakerOutput": {"score": 0.25}},
    ]
    # One list for the batch, and inputs that are no objects.
    sent, kept = filtered(Filters(join=True), b"[1]\n[2]", b"[10, 20]", "application/json")
    assert [json.loads(line) for line in kept.splitlines()] == [
        {"SageMakerInput": [1], "SageMakerOutput": 10},
        {"SageMakerInput": [2], "SageMakerOutput": 20},
    ]
    assert filtered(Filters(output="$.a.b"), b"{}", b'{"a": {"b": 3}}', "application/json")[1] == (
        b"3"
    )


@pytest.mark.parametrize(
    ("filters", "body", "said", "words"),
    [
        (Filters("$[7]"), b"1,2", b"", "finds nothing"),
        (Filters(join=True), b"1\n2", b"5", "answered 1 rows to 2"),
        (Filters("$["), b"1", b"", "no JSONPath"),
        (Filters("features"), b"1", b"", "begins with"),
    ],
)
def test_what_does_not_fit_is_said(filters: Filters, body: bytes, said: bytes, words: str) -> None:
    with pytest.raises(BadRows, match=words):
        filtered(filters, body, said)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_a_line_of_json_may_hold_the_line_ends_of_unicode(end: str) -> None:
    rows = [{"x": f"a{end}b"}, {"x": "c"}]
    body = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    sent, kept = filtered(Filters(join=True), body, body, "application/jsonlines")
    assert [json.loads(line) for line in sent.split(b"\n")] == rows
    joined = [{**row, "SageMakerOutput": row} for row in rows]
    assert [json.loads(line) for line in kept.split(b"\n")] == joined


def test_rows_need_a_format_that_has_them() -> None:
    with pytest.raises(BadRows, match="image/png has none"):
        RowFilter(Filters("$[0]"), "image/png", one_a_line=False)
    with pytest.raises(BadRows, match="cannot be joined"):
        filtered(Filters(join=True), b"1,2", b"[1]", told="application/json")
    with pytest.raises(BadRows, match="no jsonlines"):
        filtered(Filters("$.x"), b"{", b"", "application/jsonlines")
    assert path_of("$.a").singular_query()


@settings(max_examples=40, deadline=None)
@given(
    answers=st.dictionaries(st.integers(0, 50), st.binary(max_size=30), max_size=8),
    cut=st.integers(0, 300),
)
def test_a_torn_journal_keeps_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[int, bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("parts") / "p"
    journal = Parts(path, {"etag": "e"})
    sizes = [path.stat().st_size]
    for index, answer in answers.items():
        journal.add(index, answer)
        sizes.append(path.stat().st_size)
    journal.close()
    keep = max(sizes[0], sizes[-1] - cut)
    with path.open("r+b") as file:
        file.truncate(keep)
    again = Parts(path, {"etag": "e"})
    whole = sum(size <= keep for size in sizes) - 1
    kept = list(answers)[:whole]
    assert [index for index in answers if index in again] == kept
    for index in answers:
        if index not in again:
            again.add(index, answers[index])
    again.close()
    last, out = Parts(path, {"etag": "e"}), io.BytesIO()
    last.assemble(out, lines=False)
    last.close()
    assert out.getvalue() == b"".join(answers[index] for index in sorted(answers))


def test_a_journal_of_another_input_is_begun_anew(tmp_path: Path) -> None:
    journal = Parts(tmp_path / "p", {"etag": "old"})
    journal.add(0, b"x")
    with pytest.raises(ValueError, match="answered before"):
        journal.add(0, b"y")
    journal.close()
    again, out = Parts(tmp_path / "p", {"etag": "new"}), io.BytesIO()
    assert len(again) == 0
    again.add(1, b"b\n")
    again.add(0, b"a")
    again.assemble(out, lines=True)
    assert out.getvalue() == b"a\nb\n"
    again.close()
