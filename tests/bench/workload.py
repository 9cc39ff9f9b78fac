"""The requests of the benchmark: random words, exact token counts, greedy, no end of sequence.

*main*: every prompt differs from its first token, so that no prefix cache helps. *shared*: one
long prefix, short tails of their own. Knows no server.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

PROMPT_TOKENS = 128
OUTPUT_TOKENS = 128
SHARED_TOKENS = 512
TAIL_TOKENS = 32
SHARED_REQUESTS = 32
SHARED_OUTPUT_TOKENS = 64
_FIRST_WORD, _LAST_WORD = 1000, 30000
_FEWEST_REQUESTS = 3


@dataclass(frozen=True, slots=True)
class Workload:
    """A closed loop: ``concurrency`` clients, each sends its next request when one is answered."""

    name: str
    prompts: Sequence[Sequence[int]]
    max_tokens: int
    concurrency: int


class Prompts:
    """Random prompts whose text has exactly the tokens drawn."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._words = [
            number
            for number in range(_FIRST_WORD, min(_LAST_WORD, tokenizer.get_vocab_size()))
            if re.fullmatch(r" [a-z]{3,9}", tokenizer.decode([number]))
        ]

    @classmethod
    def of(cls, model_dir: Path, seed: int) -> Prompts:
        return cls(Tokenizer.from_file(str(model_dir / "tokenizer.json")), seed)

    def draw(self, length: int) -> list[int]:
        """``length`` tokens which the tokenizer gives back from their own text."""
        while True:
            ids = self._random.choices(self._words, k=length)
            if self._tokenizer.encode(self.text(ids), add_special_tokens=False).ids == ids:
                return ids

    def text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids))

    def main(self, concurrency: int, per_client: int = 2) -> Workload:
        """128 tokens in, 128 out; ``per_client`` requests of each client, at least three in all."""
        count = max(concurrency * per_client, _FEWEST_REQUESTS)
        prompts = [self.draw(PROMPT_TOKENS) for _ in range(count)]
        return Workload(f"c={concurrency}", prompts, OUTPUT_TOKENS, concurrency)

    def shared(self) -> Workload:
        """32 at once: 512 common tokens and 32 of their own in, 64 out."""
        prefix = self.draw(SHARED_TOKENS)
        prompts = [prefix + self.draw(TAIL_TOKENS) for _ in range(SHARED_REQUESTS)]
        return Workload("shared", prompts, SHARED_OUTPUT_TOKENS, SHARED_REQUESTS)

    def warm_up(self) -> Workload:
        prompts = [self.draw(PROMPT_TOKENS) for _ in range(4)]
        return Workload("warm-up", prompts, 16, 4)
