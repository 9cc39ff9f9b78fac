"""What the data and the hyperparameters ask of memory: the longest record counts. Needs the base's
tokenizer, and no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from ridgeline_recipes.memory import Setting
from ridgeline_recipes.options import Options

_TURN = 8  # tokens that a template puts around a message, from above


def longest_record(folder: Path, records: Iterable[Iterable[str]]) -> int:
    """Tokens of the longest record, each given as the texts that it is made of."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    longest = 1
    for texts in records:
        pieces = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        longest = max(longest, sum(len(piece.ids) + _TURN for piece in pieces))
    return longest


def setting_of(
    options: Options, tokens: int, *, sequences: int = 1, logits: bool = True
) -> Setting:
    """``sequences``: how many a record becomes; two for a pair of answers."""
    return Setting(
        dtype=options.chosen_dtype,
        rank=options.rank,
        batch_size=options.batch_size,
        gradient_accumulation=options.gradient_accumulation,
        tokens=min(tokens, options.max_length),
        gradient_checkpointing=options.gradient_checkpointing,
        sequences=sequences,
        logits=logits,
    )
