"""Chats as tokens: the tokenizer and the template of one base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ridgeline_recipes.base_model import end_ids
from ridgeline_recipes.formats import Chat, Message
from ridgeline_recipes.job import say
from ridgeline_recipes.template import Encoded, encode_chat


class ChatEncoder:
    """``tokenizer`` has the template of training."""

    def __init__(self, tokenizer: Any, model: Path, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._ends = end_ids(model, tokenizer)
        self._max_length = max_length

    def all(self, chats: Sequence[Chat]) -> list[Encoded]:
        """Logs how many are cut."""
        made = [self.one(chat) for chat in chats]
        cut = sum(each.cut for each in made)
        if cut:
            say(f"{cut} of {len(made)} chats are longer than max_length and are cut")
        return made

    def one(self, chat: Chat) -> Encoded:
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
