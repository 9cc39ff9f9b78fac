"""Instruction data in JumpStart's form: template.json makes chats of records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ridgeline_recipes.failing import DataInvalid, RecipeFailed
from ridgeline_recipes.formats import Chat, Message
from ridgeline_recipes.instruction import instruction_format
from ridgeline_recipes.records import read_records

TEMPLATE = {"prompt": "Read: {context}\n{question} {{short}}", "completion": "{answer}"}
RECORD = {"context": "Open at 8:40.", "question": "When?", "answer": "At 8:40."}


def chats(folder: Path, *records: object) -> list[Chat]:
    (folder / "template.json").write_text(json.dumps(TEMPLATE))
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    parse = instruction_format(folder)
    assert parse is not None
    return read_records([path], parse)


def test_fields_of_records_are_put_into_prompt_and_completion(tmp_path: Path) -> None:
    found = chats(tmp_path, RECORD, {**RECORD, "context": "", "answer": 8, "source": None})
    assert found == [
        Chat((Message("user", f"Read: {context}\nWhen? {{short}}"), Message("assistant", answer)))
        for context, answer in (("Open at 8:40.", "At 8:40."), ("", "8"))
    ]


def test_fields_that_records_lack_are_named_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid) as caught:
        chats(
            tmp_path,
            RECORD,
            {"context": "", "questoin": "When?", "answer": "At 8:40."},
            {**RECORD, "context": ["Open"]},
            {**RECORD, "answer": " "},
        )
    assert [str(fault) for fault in caught.value.faults] == [
        "train.jsonl:2: question: expected a text or a number, which template.json names, "
        "not a line with 'questoin' in its place",
        "train.jsonl:3: context: expected a text or a number, which template.json names, "
        "not a list of 1",
        'train.jsonl:4: template.json completion: expected a text that is not empty, not " "',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object in UTF-8"),
        ('{"prompt": "{q}"}', "with the texts prompt and completion, not an object with prompt"),
        ('{"prompt": "{q}", "completion": 3}', "completion: expected a text with fields"),
        ('{"prompt": "{q}", "completion": "yes"}', "completion: expected a text with fields"),
        ('{"prompt": "{q", "completion": "{a}"}', "a brace itself is doubled"),
        ('{"prompt": "{q!r}", "completion": "{a}"}', "a field is a name alone"),
        ('{"prompt": "{}", "completion": "{a}"}', "a field is a name alone"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "template.json").write_text(text)
    with pytest.raises(RecipeFailed, match=r"^template\.json: ") as caught:
        instruction_format(tmp_path)
    assert message in str(caught.value)


def test_a_channel_without_a_template_has_no_form_of_its_own(tmp_path: Path) -> None:
    assert instruction_format(tmp_path) is None
