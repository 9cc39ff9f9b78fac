"""The chat template that a model is trained with, which is the one that it is served with.

A template that adds a system prompt of its own to every chat makes each record longer and teaches
nothing; for ChatML models there is one beside this file that adds nothing. Others keep theirs.
What the assistant says is found by rendering a chat turn by turn, so a template needs no markers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.formats import Chat, Message

FILE = "chat_template.jinja"
IGNORED = -100
"""The label of a token that is not learned."""

_CHATML = Path(__file__).with_name("templates") / "chatml.jinja"
_CHATML_TURN = "<|im_start|>"
_WORDS_OF_MORE = ("tools", "tool_calls", "enable_thinking")

Render = Callable[[Sequence[Message], bool], str]
"""Messages, and whether the assistant's turn is to be begun, to text."""

Encode = Callable[[str], Sequence[tuple[int, int, int]]]
"""Text to tokens, each its id with start and end in the text."""


@dataclass(frozen=True)
class Encoded:
    """One record. ``labels`` are the ids where they are learned, else IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: bool

    @property
    def learned(self) -> bool:
        """Whether anything is."""
        return any(label != IGNORED for label in self.labels)


def training_template(own: str | None) -> str:
    """The template to train and serve with, from the model's ``own``."""
    if own is None:
        raise RecipeFailed(
            "The base model has no chat template, so it cannot learn from chats. Choose an "
            "instruct model, or continue its pre-training on texts (pretrain.py)."
        )
    plain = _CHATML_TURN in own and not any(word in own for word in _WORDS_OF_MORE)
    return _CHATML.read_text() if plain else own


def encode_chat(
    chat: Chat, render: Render, encode: Encode, ends: frozenset[int], max_length: int
) -> Encoded:
    """Tokens of a chat, with labels on what the assistant says up to the token that ends its turn:
    the last such, since its words may hold one.

    ``ends`` are the ids that end a generation. Raises RecipeFailed for a template that renders the
    beginning of a chat otherwise than the chat.
    """
    text = render(chat.messages, False)
    spans = []
    for number, message in enumerate(chat.messages):
        if message.role != "assistant":
            continue
        before = render(chat.messages[:number], True)
        after = render(chat.messages[: number + 1], False)
        if not (text.startswith(before) and text.startswith(after) and len(before) < len(after)):
            raise RecipeFailed(
                "The base model's chat template renders the beginning of a chat otherwise than the "
                "whole chat, so what the assistant says cannot be told apart. Choose another base."
            )
        spans.append((len(before), len(after)))
    tokens = encode(text)
    ids, starts = [token for token, _, _ in tokens], [start for _, start, _ in tokens]
    labels = [IGNORED] * len(ids)
    for begin, end in spans:
        first, beyond = bisect_left(starts, begin), bisect_left(starts, end)
        last = max((at for at in range(first, beyond) if ids[at] in ends), default=beyond - 1)
        for at in range(first, last + 1):
            if tokens[at][2] > starts[at]:  # one that stands for no text is not said
                labels[at] = ids[at]
    return Encoded(tuple(ids[:max_length]), tuple(labels[:max_length]), len(ids) > max_length)
