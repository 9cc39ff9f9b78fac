"""Bad data is named by line, field and what was expected, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_recipes import formats
from ridgeline_recipes.failing import SHOWN, DataInvalid, RecipeFailed
from ridgeline_recipes.formats import Chat, Labelled, Message, Preference, Question
from ridgeline_recipes.records import Parse, jsonl_files, read_records, with_held_out

USER = {"role": "user", "content": "When?"}
ASSISTANT = {"role": "assistant", "content": "At 8:40."}
SYSTEM = {"role": "system", "content": "Be short."}


def faults(folder: Path, parse: Parse[object], *lines: object) -> list[str]:
    path = folder / "data.jsonl"
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    with pytest.raises(DataInvalid) as caught:
        read_records([path], parse)
    return [str(fault) for fault in caught.value.faults]


def read(folder: Path, parse: Parse[object], *lines: object) -> list[object]:
    path = folder / "good.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return read_records([path], parse)


def test_a_chat_in_each_spelling_is_the_same(tmp_path: Path) -> None:
    chat = Chat((Message("user", "When?"), Message("assistant", "At 8:40.")))
    assert read(
        tmp_path,
        formats.chat,
        {"messages": [USER, ASSISTANT], "source": "shop"},
        {"prompt": "When?", "completion": "At 8:40."},
        {"prompt": [USER], "completion": [ASSISTANT]},
    ) == [chat, chat, chat]


def test_every_bad_line_is_reported_with_its_number(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        formats.chat,
        {"messages": [USER, ASSISTANT]},
        {"messages": [{"role": "human", "content": "When?"}, ASSISTANT]},
        b"",
        {"messages": [USER, {"role": "assistant", "content": " "}]},
        {"message": [USER, ASSISTANT]},
    ) == [
        "data.jsonl:2: messages[0].role: expected 'system', 'user' or 'assistant', not \"human\"",
        'data.jsonl:4: messages[1].content: expected a text that is not empty, not " "',
        "data.jsonl:5: messages: expected a list of messages, each an object with role and "
        "content, not a line with 'message' in its place",
    ]


@pytest.mark.parametrize(
    ("messages", "field", "expected"),
    [
        ("When?", "messages", "a list of messages"),
        ([], "messages", "a list of messages"),
        (["When?"], "messages[0]", "an object with role and content"),
        ([{"content": "When?"}], "messages[0].role", "not an object without it"),
        ([{"role": "user"}], "messages[0].content", "not an object without it"),
        ([{"role": "user", "content": 3}, ASSISTANT], "messages[0].content", "not 3"),
        ([USER, ASSISTANT, USER], "messages[2].role", "a chat ends with what is learned"),
        ([USER], "messages[0].role", "a chat ends with what is learned"),
        ([USER, USER, ASSISTANT], "messages[1].role", "'assistant' (user and assistant by turns)"),
        ([ASSISTANT], "messages[0].role", "'user' (user and assistant by turns)"),
        ([USER, SYSTEM, ASSISTANT], "messages[1].role", "'assistant'"),
    ],
)
def test_a_wrong_chat_is_told_where(
    tmp_path: Path, messages: object, field: str, expected: str
) -> None:
    (fault,) = faults(tmp_path, formats.chat, {"messages": messages})
    assert fault.startswith(f"data.jsonl:1: {field}: expected ")
    assert expected in fault


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\xff\xfe{}", "text in UTF-8, not byte 0xff at position 1"),
        (b'{"messages": [', "JSON that breaks at column"),
        (b"[1, 2]", "a JSON object, not a list of 2"),
        (b'{"text": "\\ud800"}', "text in Unicode, not half of a surrogate pair"),
        (b"[" * 100_000, "a JSON object, not JSON"),
    ],
)
def test_a_line_that_is_no_json_is_told_where_it_breaks(
    tmp_path: Path, line: bytes, expected: str
) -> None:
    (fault,) = faults(tmp_path, formats.text, line)
    assert fault.startswith("data.jsonl:1: (line): expected ")
    assert expected in fault


def test_an_empty_file_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, formats.text, b"") == [
        "data.jsonl:1: (file): expected one JSON object a line, not an empty file"
    ]


def test_many_faults_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": 1}\n' * (SHOWN + 5))
    with pytest.raises(DataInvalid) as caught:
        read_records([path], formats.text)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{SHOWN + 5} lines of the data are wrong; nothing was trained."
    assert len(lines) == SHOWN + 2
    assert lines[-1] == "... and 5 more"
    assert len(caught.value.faults) == SHOWN + 5


def test_preferences_need_two_answers_that_differ(tmp_path: Path) -> None:
    wanted = Preference((Message("user", "When?"),), "At 8:40.", "No idea.")
    good = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": "No idea."}
    assert read(tmp_path, formats.preference, good) == [wanted]
    assert [
        fault.partition(", not")[0]
        for fault in faults(
            tmp_path,
            formats.preference,
            {**good, "rejected": "At 8:40."},
            {**good, "chosen": [USER]},
            {**good, "prompt": [USER, ASSISTANT]},
            {"prompt": "When?", "chosen": "At 8:40."},
        )
    ] == [
        "data.jsonl:1: rejected: expected another answer than chosen",
        "data.jsonl:2: chosen: expected one message of the assistant",
        "data.jsonl:3: prompt[1].role: expected 'user'",
        "data.jsonl:4: rejected: expected a text that is not empty",
    ]


def test_labels_are_texts_or_whole_numbers(tmp_path: Path) -> None:
    good = read(
        tmp_path, formats.labelled, {"text": "When?", "label": "hours"}, {"text": "x", "label": 3}
    )
    assert good == [Labelled("When?", "hours"), Labelled("x", "3")]
    found = faults(
        tmp_path,
        formats.labelled,
        {"text": "x", "label": 0.5},
        {"text": "x", "label": True},
        {"text": "x"},
        {"label": "hours"},
    )
    assert [fault.split(": ")[1] for fault in found] == ["label", "label", "label", "text"]


def test_questions_name_what_is_right(tmp_path: Path) -> None:
    good = read(tmp_path, formats.question, {"q": "When?", "any": ["8:40"], "fact": "hours"})
    assert good == [Question("When?", ("8:40",))]
    found = faults(
        tmp_path,
        formats.question,
        {"q": "When?", "any": []},
        {"q": "When?", "any": ["8:40", ""]},
        {"q": "When?"},
    )
    assert [fault.split(": ")[1] for fault in found] == ["any", "any[1]", "any"]


def test_hidden_files_of_a_channel_are_not_its_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "._a.jsonl").write_bytes(b"\0\x05\x16\x07Mac OS X")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    assert jsonl_files(tmp_path, "training") == [tmp_path / "a.jsonl"]


def test_a_channel_without_jsonl_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n")
    with pytest.raises(RecipeFailed, match=r"no \.jsonl file \(there: train\.csv\)"):
        jsonl_files(tmp_path, "training")
    with pytest.raises(RecipeFailed, match="no channel 'validation'"):
        jsonl_files(tmp_path / "none", "validation")


@given(labels=st.lists(st.sampled_from("abcd"), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_a_record_of_each_kind_is_left_to_learn(labels: list[str], seed: int) -> None:
    kinds = set(labels)
    if len(kinds) == len(labels):
        with pytest.raises(RecipeFailed, match="The only record of a label cannot be both"):
            with_held_out(labels, None, seed, str)
        return
    learned, held_out = with_held_out(labels, None, seed, str)
    assert set(learned) == kinds
    assert sorted(learned + held_out) == sorted(labels)
    assert 1 <= len(held_out) <= max(1, len(labels) // 10)


def test_a_single_record_cannot_be_held_out() -> None:
    with pytest.raises(RecipeFailed, match="One record cannot be both learned and held out"):
        with_held_out(["a"], None, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "prompt", "chosen", "text", "label", "any"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(value=JSON)
@pytest.mark.parametrize(
    "parse", [formats.chat, formats.preference, formats.text, formats.labelled, formats.question]
)
def test_any_json_is_read_or_refused_with_a_fault(
    tmp_path_factory: pytest.TempPathFactory, parse: Parse[object], value: object
) -> None:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text(json.dumps(value))
    try:
        read = len(read_records([path], parse))
        faults = 0
    except DataInvalid as error:
        read = 0
        faults = len(error.faults)
        str(error).encode()
    assert (read == 1) != (faults > 0)


def test_a_template_is_one_beside_the_records_of_the_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    for name in ("data/train.jsonl", "data/template.json", "template.json"):
        (tmp_path / name).write_text("{}\n")
    jsonl_files(tmp_path, "training", also="template.json")
    assert "not read, since only *.jsonl is: data/template.json" in capsys.readouterr().out
