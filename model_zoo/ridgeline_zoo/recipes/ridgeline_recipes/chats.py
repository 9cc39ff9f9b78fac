"""Chats and pairs of answers as tokens: the tokenizer and the template of one base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ridgeline_recipes.base_model import end_ids
from ridgeline_recipes.cutting import Row, learnable
from ridgeline_recipes.formats import Chat, Message, Preference
from ridgeline_recipes.template import Encoded, encode_chat


class ChatEncoder:
    """``tokenizer`` has the template of training."""

    def __init__(self, tokenizer: Any, model: Path, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._ends = end_ids(model, tokenizer)
        self._max_length = max_length

    def chats(self, chats: Sequence[Chat], what: str, *, required: bool) -> list[Encoded]:
        """Those of which ``max_length`` leaves something to learn, as ``learnable`` says."""
        rows = [Row(chat, chat.place, (self._one(chat),)) for chat in chats]
        kept = learnable(rows, what, self._max_length, required=required)
        return [row.encoded[0] for row in kept]

    def pairs(
        self, pairs: Sequence[Preference], what: str, *, required: bool
    ) -> list[Row[Preference]]:
        """Pairs with both answers encoded, the chosen one first; as ``chats``."""
        rows = [
            Row(pair, pair.place, tuple(self._one(each) for each in _answered(pair)))
            for pair in pairs
        ]
        return learnable(rows, what, self._max_length, required=required)

    def _one(self, chat: Chat) -> Encoded:
        return encode_chat(chat, self._render, self._encode, self._ends, self._max_length)

    def _render(self, messages: Sequence[Message], begin: bool) -> str:
        turns = [message.as_json() for message in messages]
        made: str = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=begin
        )
        return made

    def _encode(self, text: str) -> list[tuple[int, int, int]]:
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [
            (token, start, end)
            for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]


def _answered(pair: Preference) -> list[Chat]:
    return [
        Chat((*pair.prompt, Message("assistant", answer)))
        for answer in (pair.chosen, pair.rejected)
    ]
