"""JumpStart's form of instruction data: ``template.json`` beside the JSON lines says how the fields
of a record make a prompt and its completion.

    {"prompt": "Answer from the text.\\n{context}\\n{question}", "completion": "{answer}"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.formats import Chat, Message
from ridgeline_recipes.records import Parse, Record, shown

TEMPLATE = "template.json"


@dataclass(frozen=True)
class _Pattern:
    """A text with fields. ``parts`` are pairs of a literal and the field after it, which the last
    may lack."""

    name: str
    parts: tuple[tuple[str, str | None], ...]

    def filled(self, record: Record) -> str | None:
        """The text for a record; None, with faults, if fields are missing or all is blank."""
        texts = []
        for literal, field in self.parts:
            texts += [literal, "" if field is None else _text(record, field)]
        found = [text for text in texts if text is not None]
        if len(found) < len(texts):
            return None
        whole = "".join(found)
        if not whole.strip():
            record.fault(f"{TEMPLATE} {self.name}", "a text that is not empty", shown(whole))
            return None
        return whole


def instruction_format(folder: Path) -> Parse[Chat] | None:
    """How records of a channel become chats by its template.json; None if it has none.

    Raises RecipeFailed for a template that cannot be read.
    """
    path = folder / TEMPLATE
    if not path.is_file():
        return None
    try:
        given = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecipeFailed(f"{TEMPLATE}: expected a JSON object in UTF-8 ({error}).") from None
    if not isinstance(given, dict) or set(given) != {"prompt", "completion"}:
        raise RecipeFailed(
            f"{TEMPLATE}: expected an object with the texts prompt and completion, "
            f"not {shown(given)}."
        )
    prompt, completion = (_pattern(name, given[name]) for name in ("prompt", "completion"))

    def chat(record: Record) -> Chat | None:
        asked, answered = prompt.filled(record), completion.filled(record)
        if asked is None or answered is None:
            return None
        return Chat((Message("user", asked), Message("assistant", answered)), record.place)

    return chat


def _pattern(name: str, text: object) -> _Pattern:
    expected = f"{TEMPLATE}: {name}: expected a text with fields such as {{question}}"
    if not isinstance(text, str):
        raise RecipeFailed(f"{expected}, not {shown(text)}.")
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise RecipeFailed(f"{expected} ({error}; a brace itself is doubled).") from None
    for _, field, form, conversion in parsed:
        if field is not None and (not field or form or conversion):
            raise RecipeFailed(f"{expected}, not {shown(text)}: a field is a name alone.")
    if all(field is None for _, field, _, _ in parsed):
        raise RecipeFailed(f"{expected}, not {shown(text)}.")
    return _Pattern(name, tuple((literal, field) for literal, field, _, _ in parsed))


def _text(record: Record, field: str) -> str | None:
    """A field as text. It may be empty: much instruction data has no context at times."""
    expected = f"a text or a number, which {TEMPLATE} names"
    if field not in record.values:
        record.missing(field, expected)
        return None
    value = record.values[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        record.wrong(field, expected, value)
        return None
    return str(value)
