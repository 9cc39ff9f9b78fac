"""Log streams on disk, read by page from both ends, while they are written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.paths import DataDir
from ridgeline_service.telemetry.log_lines import START, InvalidPosition, Position, Window
from ridgeline_service.telemetry.logs import LogStore, NoSuchLog

GROUP = "/aws/sagemaker/Endpoints/e"
ALL = Window()


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path)


def write(data_dir: DataDir, stream: str, raw: bytes, group: str = GROUP) -> None:
    path = data_dir.log_groups / quote(group, safe="") / f"{quote(stream, safe='')}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


def lines(*events: tuple[int, str]) -> bytes:
    return b"".join(json.dumps({"t": t, "m": m}).encode() + b"\n" for t, m in events)


def messages(page: object) -> list[str]:
    return [event.message for event in page.events]  # type: ignore[attr-defined]


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)


@given(st.lists(st.tuples(st.integers(0, 10**13), texts), max_size=40), st.integers(1, 7))
def test_paging_either_way_gives_every_line_once(tmp_path_factory, events, limit) -> None:
    data_dir = DataDir(tmp_path_factory.mktemp("d"))
    write(data_dir, "s", lines(*events))
    store = LogStore(data_dir)
    forward: list[str] = []
    position = START
    while page := store.read_forward(GROUP, "s", position=position, limit=limit, window=ALL):
        assert len(page.events) <= limit
        if not page.events:
            break
        forward += messages(page)
        position = page.after
    assert forward == [message for _, message in events]
    backward: list[str] = []
    at: Position | None = None
    while True:
        page = store.read_backward(GROUP, "s", position=at, limit=limit, window=ALL)
        if not page.events:
            break
        backward = messages(page) + backward
        at = page.before
    assert backward == forward


@pytest.mark.parametrize("size", [10, 65_530, 65_536, 65_542, 200_000])
def test_blocks_do_not_cut_lines(data_dir: DataDir, size: int) -> None:
    events = [(n, "x" * (size if n == 3 else 7) + str(n)) for n in range(8)]
    write(data_dir, "s", lines(*events))
    page = LogStore(data_dir).read_backward(GROUP, "s", limit=6, window=ALL)
    assert [event.timestamp for event in page.events] == [2, 3, 4, 5, 6, 7]
    assert page.events[1].message == events[3][1]


def test_a_half_written_line_comes_when_it_is_whole(data_dir: DataDir) -> None:
    whole = lines((1, "one"), (2, "two"))
    write(data_dir, "s", whole[:-5])
    store = LogStore(data_dir)
    page = store.read_forward(GROUP, "s", limit=10, window=ALL)
    assert messages(page) == ["one"]
    assert messages(store.read_backward(GROUP, "s", limit=10, window=ALL)) == ["one"]
    write(data_dir, "s", whole)
    rest = store.read_forward(GROUP, "s", position=page.after, limit=10, window=ALL)
    assert messages(rest) == ["two"]


def test_lines_that_a_killed_writer_spoiled_are_skipped(data_dir: DataDir) -> None:
    spoiled = b'{"t": 1, "m": "cut{"t": 2, "m": "x"}\n[]\nnull\n\n{"t": "1", "m": "x"}\n'
    write(data_dir, "s", spoiled + b"\xff\xfe\n" + lines((3, "three\r\n")))
    store = LogStore(data_dir)
    assert messages(store.read_forward(GROUP, "s", limit=9, window=ALL)) == ["three\r\n"]
    assert messages(store.read_backward(GROUP, "s", limit=9, window=ALL)) == ["three\r\n"]


def test_a_window_of_time_includes_its_start_and_not_its_end(data_dir: DataDir) -> None:
    write(data_dir, "s", lines(*((n, str(n)) for n in range(10))))
    store = LogStore(data_dir)
    for read in (store.read_forward, store.read_backward):
        assert messages(read(GROUP, "s", limit=10, window=Window(3, 6))) == ["3", "4", "5"]
    assert messages(store.read_forward(GROUP, "s", limit=2, window=Window(3))) == ["3", "4"]
    assert messages(store.read_backward(GROUP, "s", limit=2, window=Window(None, 6))) == ["4", "5"]


def test_a_stream_that_was_begun_anew_is_read_from_its_start(data_dir: DataDir) -> None:
    """Also where a line of the new one starts as far from its start as one of the old one did."""
    store = LogStore(data_dir)
    write(data_dir, "s", lines((1, "old a"), (2, "old b"), (3, "old c")))
    old = store.read_forward(GROUP, "s", limit=2, window=ALL)
    store.delete_stream(GROUP, "s")
    new = [(4, "new a"), (5, "new b"), (6, "new c")]
    write(data_dir, "s", lines(*new))
    page = store.read_forward(GROUP, "s", position=old.after, limit=10, window=ALL)
    assert messages(page) == ["new a", "new b", "new c"]
    merged = store.merge(GROUP, {"s": old.after}, ALL)
    first, second, _ = [(event.message, after) for _, event, after in merged]
    assert [first[0], second[0]] == ["new a", "new b"]
    for position in (page.after, second[1]):
        write(data_dir, "s", lines(*new, (7, "new d")))
        rest = store.read_forward(GROUP, "s", position=position, limit=10, window=ALL)
        assert messages(rest)[-1] == "new d"
        assert "new b" not in messages(rest)
    nothing = store.read_backward(GROUP, "s", position=old.after, limit=10, window=ALL)
    assert (nothing.events, nothing.before) == ((), START)


def test_a_position_inside_a_line_is_refused(data_dir: DataDir) -> None:
    write(data_dir, "s", lines((1, "one")))
    store = LogStore(data_dir)
    opening = store.read_forward(GROUP, "s", limit=1, window=ALL).after.opening
    for position in (Position(offset, opening) for offset in (5, 10**9)):
        with pytest.raises(InvalidPosition):
            store.read_forward(GROUP, "s", position=position, limit=1, window=ALL)
        with pytest.raises(InvalidPosition):
            store.read_backward(GROUP, "s", position=position, limit=1, window=ALL)


def test_pages_are_bounded_in_bytes(data_dir: DataDir) -> None:
    write(data_dir, "s", lines(*((n, "y" * 300_000) for n in range(8))))
    store = LogStore(data_dir)
    assert len(store.read_forward(GROUP, "s", limit=100, window=ALL).events) == 3
    assert len(store.read_backward(GROUP, "s", limit=100, window=ALL).events) == 3


@pytest.mark.parametrize("group", ["", ".", "..", "../..", "x" * 512, "/" * 500, "nul\0"])
def test_names_never_leave_the_folder(data_dir: DataDir, group: str) -> None:
    write(data_dir, "s", lines((1, "one")))
    store = LogStore(data_dir)
    with pytest.raises(NoSuchLog):
        store.streams(group)
    with pytest.raises(NoSuchLog):
        store.read_forward(GROUP, group, limit=1, window=ALL)
    assert not store.has_group(group)


def test_groups_and_streams_are_listed(data_dir: DataDir) -> None:
    store = LogStore(data_dir)
    assert store.groups() == []
    write(data_dir, "v/r2", lines((5, "a"), (9, "b")))
    write(data_dir, "v/r1", b"")
    write(data_dir, "x", b"", group="/other")
    assert [group.name for group in store.groups()] == [GROUP, "/other"]
    found = store.streams(GROUP, "v/")
    assert [(s.name, s.first, s.last) for s in found] == [("v/r1", None, None), ("v/r2", 5, 9)]
    assert store.streams(GROUP, "w") == []


def test_streams_are_merged_by_time(data_dir: DataDir) -> None:
    write(data_dir, "a", lines((1, "a1"), (4, "a4")))
    write(data_dir, "b", lines((2, "b2"), (4, "b4"), (5, "b5")))
    merged = LogStore(data_dir).merge(GROUP, {"a": START, "b": START}, Window(2))
    assert [(s, event.message) for s, event, _ in merged] == [
        ("b", "b2"),
        ("a", "a4"),
        ("b", "b4"),
        ("b", "b5"),
    ]


def test_the_tail_of_a_large_stream_costs_little(data_dir: DataDir, monkeypatch) -> None:
    write(data_dir, "s", lines(*((n, "z" * 90) for n in range(50_000))))
    parsed = 0
    real = json.loads

    def counted(raw: bytes) -> object:
        nonlocal parsed
        parsed += 1
        return real(raw)

    monkeypatch.setattr("ridgeline_service.telemetry.log_lines.json.loads", counted)
    page = LogStore(data_dir).read_backward(GROUP, "s", limit=20, window=ALL)
    assert [event.timestamp for event in page.events] == list(range(49_980, 50_000))
    assert parsed <= 30


def test_a_window_in_a_large_stream_costs_little(data_dir: DataDir, monkeypatch) -> None:
    seconds = [(n * 1000, "z" * 90) for n in range(50_000)]
    write(data_dir, "s", lines(*seconds))
    parsed = 0
    real = json.loads

    def counted(raw: bytes) -> object:
        nonlocal parsed
        parsed += 1
        return real(raw)

    monkeypatch.setattr("ridgeline_service.telemetry.log_lines.json.loads", counted)
    store = LogStore(data_dir)
    window = Window(30_000_000, 30_003_000)
    for read in (store.read_forward, store.read_backward):
        parsed = 0
        page = read(GROUP, "s", limit=100, window=window)
        assert [event.timestamp for event in page.events] == [30_000_000, 30_001_000, 30_002_000]
        again = read(
            GROUP,
            "s",
            limit=100,
            window=window,
            position=page.after if read == store.read_forward else page.before,
        )
        assert again.events == ()
        if read == store.read_forward:
            assert parsed < 2000


@given(st.lists(st.integers(0, 400_000), max_size=60), st.integers(0, 400_000))
def test_skipping_loses_nothing_while_clocks_are_roughly_right(
    tmp_path_factory, times: list[int], start: int
) -> None:
    data_dir = DataDir(tmp_path_factory.mktemp("d"))
    # Out of order by less than a minute, as after a small correction of the clock.
    ordered = [time + (n % 3) * 20_000 for n, time in enumerate(sorted(times))]
    write(data_dir, "s", lines(*((time, "w" * 5000) for time in ordered)))
    store = LogStore(data_dir)
    wanted = [time for time in ordered if time >= start]
    for read in (store.read_forward, store.read_backward):
        page = read(GROUP, "s", limit=1000, window=Window(start))
        assert [event.timestamp for event in page.events] == wanted


def streams_of(data_dir: DataDir, group: str = GROUP) -> list[str]:
    return [stream.name for stream in LogStore(data_dir).streams(group)]


def test_a_stream_goes_when_nothing_was_written_for_as_long_as_its_group_keeps_it(
    data_dir: DataDir,
) -> None:
    store, day = LogStore(data_dir), 24 * 3600
    for group in (GROUP, "kept"):
        for stream, written_at in (("old", 10 * day), ("new", 12 * day)):
            write(data_dir, stream, lines((1, "x")), group)
            path = data_dir.log_groups / quote(group, safe="") / f"{stream}.jsonl"
            os.utime(path, (written_at, written_at))
    store.keep_for(GROUP, 3)
    store.expire(13 * day * 1000)
    assert streams_of(data_dir) == ["new", "old"]
    store.expire((13 * day + 1) * 1000)
    assert streams_of(data_dir) == ["new"]
    store.expire(1000 * day * 1000)
    assert streams_of(data_dir) == []
    assert streams_of(data_dir, "kept") == ["new", "old"]
    assert [(each.name, each.retention_days) for each in store.groups()] == [
        (GROUP, 3),
        ("kept", None),
    ]
    store.keep_for(GROUP, None)
    assert store.groups()[0].retention_days is None
    assert sum(each.size for each in store.groups()) == 2 * len(lines((1, "x")))


def test_streams_and_groups_are_deleted(data_dir: DataDir) -> None:
    store = LogStore(data_dir)
    for stream in ("a/b", "c"):
        write(data_dir, stream, lines((1, "x")))
    write(data_dir, "d", lines((1, "x")), "other")
    store.keep_for(GROUP, 1)
    store.delete_stream(GROUP, "a/b")
    assert streams_of(data_dir) == ["c"]
    with pytest.raises(NoSuchLog):
        store.delete_stream(GROUP, "a/b")
    store.delete_group(GROUP)
    assert [group.name for group in store.groups()] == ["other"]
    for forget in (store.delete_group, lambda group: store.keep_for(group, 1)):
        with pytest.raises(NoSuchLog):
            forget(GROUP)
