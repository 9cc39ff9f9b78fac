"""The records that recipes take, and what each field must be: chats, preferences, texts, labelled
texts, and questions that a model is tested with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ridgeline_recipes.records import Record, shown

ROLES = ("system", "user", "assistant")
_TURNS = "a list of messages, each an object with role and content"


@dataclass(frozen=True)
class Message:
    role: str
    content: str

    def as_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Chat:
    """Ends with a turn of the assistant. ``system`` may come first, then user and assistant by
    turns. ``place`` is where it was read."""

    messages: tuple[Message, ...]
    place: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Preference:
    """``prompt`` ends with a user's turn; ``chosen`` and ``rejected`` are answers to it. ``place``
    is where it was read."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    place: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Labelled:
    text: str
    label: str


@dataclass(frozen=True)
class Question:
    """An answer is right if it contains one of ``accepted``."""

    question: str
    accepted: tuple[str, ...]


def chat(record: Record) -> Chat | None:
    """``{"messages": [...]}``, or ``{"prompt": ..., "completion": ...}`` as texts or messages."""
    if "messages" not in record.values and "prompt" in record.values:
        prompt = _prompt(record)
        completion = _answer(record, "completion")
        if prompt is None or completion is None:
            return None
        return Chat((*prompt, Message("assistant", completion)), record.place)
    if "messages" not in record.values:
        record.missing("messages", _TURNS)
        return None
    messages = _messages(record, "messages", record.values["messages"])
    if messages is None or not _in_turns(record, "messages", messages):
        return None
    if messages[-1].role != "assistant":
        last = f"messages[{len(messages) - 1}].role"
        record.wrong(last, "'assistant': a chat ends with what is learned", messages[-1].role)
        return None
    return Chat(messages, record.place)


def preference(record: Record) -> Preference | None:
    """``{"prompt": ..., "chosen": ..., "rejected": ...}``, each a text or a list of messages."""
    prompt = _prompt(record)
    chosen, rejected = _answer(record, "chosen"), _answer(record, "rejected")
    if prompt is None or chosen is None or rejected is None:
        return None
    if chosen == rejected:
        record.wrong("rejected", "another answer than chosen", rejected)
        return None
    return Preference(prompt, chosen, rejected, record.place)


def text(record: Record) -> str | None:
    """``{"text": ...}``."""
    return _text(record, "text")


def labelled(record: Record) -> Labelled | None:
    """``{"text": ..., "label": ...}``; a label is a text or a whole number."""
    content = _text(record, "text")
    if "label" not in record.values:
        record.missing("label", "a text or a whole number")
        return None
    label = record.values["label"]
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        record.wrong("label", "a text or a whole number", label)
        return None
    return None if content is None else Labelled(content, str(label))


def question(record: Record) -> Question | None:
    """``{"q": ..., "any": [...]}``."""
    content = _text(record, "q")
    if "any" not in record.values:
        record.missing("any", "a list of texts, of which a right answer contains one")
        return None
    accepted = record.values["any"]
    if not isinstance(accepted, list) or not accepted:
        record.wrong("any", "a list of at least one text", accepted)
        return None
    texts = [item for item in accepted if isinstance(item, str) and item]
    for number, item in enumerate(accepted):
        if not isinstance(item, str) or not item:
            record.wrong(f"any[{number}]", "a text that is not empty", item)
    if content is None or len(texts) < len(accepted):
        return None
    return Question(content, tuple(texts))


def _text(record: Record, field: str) -> str | None:
    expected = "a text that is not empty"
    if field not in record.values:
        record.missing(field, expected)
        return None
    value = record.values[field]
    if not isinstance(value, str) or not value.strip():
        record.wrong(field, expected, value)
        return None
    return value


def _prompt(record: Record) -> tuple[Message, ...] | None:
    value = record.values.get("prompt")
    if value is None or isinstance(value, str):
        content = _text(record, "prompt")
        return None if content is None else (Message("user", content),)
    messages = _messages(record, "prompt", value)
    if messages is None or not _in_turns(record, "prompt", messages):
        return None
    if messages[-1].role != "user":
        record.wrong(f"prompt[{len(messages) - 1}].role", "'user'", messages[-1].role)
        return None
    return messages


def _answer(record: Record, field: str) -> str | None:
    value = record.values.get(field)
    if value is None or isinstance(value, str):
        return _text(record, field)
    messages = _messages(record, field, value)
    if messages is None:
        return None
    if len(messages) != 1 or messages[0].role != "assistant":
        record.fault(field, "one message of the assistant", _roles(messages))
        return None
    return messages[0].content


def _messages(record: Record, field: str, value: object) -> tuple[Message, ...] | None:
    if not isinstance(value, list) or not value:
        record.wrong(field, _TURNS, value)
        return None
    made = [_message(record, f"{field}[{number}]", item) for number, item in enumerate(value)]
    found = tuple(message for message in made if message is not None)
    return found if len(found) == len(made) else None


def _message(record: Record, field: str, value: object) -> Message | None:
    if not isinstance(value, Mapping):
        record.wrong(field, "an object with role and content", value)
        return None
    role, content = value.get("role"), value.get("content")
    right = True
    if role not in ROLES:
        found = shown(role) if "role" in value else "an object without it"
        record.fault(f"{field}.role", "'system', 'user' or 'assistant'", found)
        right = False
    if not isinstance(content, str) or not content.strip():
        found = shown(content) if "content" in value else "an object without it"
        record.fault(f"{field}.content", "a text that is not empty", found)
        right = False
    return Message(str(role), str(content)) if right else None


def _in_turns(record: Record, field: str, messages: Sequence[Message]) -> bool:
    """System at most first, then user and assistant by turns, user first."""
    expected = "user"
    for number, message in enumerate(messages):
        if number == 0 and message.role == "system":
            continue
        if message.role != expected:
            where = f"{field}[{number}].role"
            record.wrong(where, f"{expected!r} (user and assistant by turns)", message.role)
            return False
        expected = "assistant" if expected == "user" else "user"
    return True


def _roles(messages: Sequence[Message]) -> str:
    return f"{len(messages)} messages of {', '.join(message.role for message in messages)}"
