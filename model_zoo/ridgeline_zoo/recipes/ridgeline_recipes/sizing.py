"""What the data and the hyperparameters ask of memory: the longest record counts. Needs the base's
tokenizer, and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.memory import Setting
from ridgeline_recipes.options import Options

_TURN = 8  # tokens that a template puts around a message, from above
# They count positions from the one after the padding token's.
_COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "mpnet")


def require_positions(folder: Path, max_length: int) -> None:
    """Raises RecipeFailed where the base model has fewer positions than ``max_length``."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config") or config
    most = text.get("max_position_embeddings", text.get("n_positions"))
    if not isinstance(most, int):
        return
    if config.get("model_type") in _COUNT_FROM_PADDING:
        padding = config.get("pad_token_id")
        most -= (1 if padding is None else padding) + 1
    if max_length > most:
        raise RecipeFailed(
            f"Hyperparameter max_length: the base model takes at most {most} tokens, "
            f"not {max_length}. Give max_length={most} or less."
        )


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
    options: Options,
    tokens: int,
    *,
    records: int | None = None,
    sequences: int = 1,
    logits: bool = True,
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
        records=records,
    )
