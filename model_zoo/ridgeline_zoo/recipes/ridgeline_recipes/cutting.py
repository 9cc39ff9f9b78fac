"""What ``max_length`` leaves of records: which are cut, and which have nothing left to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ridgeline_recipes.failing import RecipeFailed, listed
from ridgeline_recipes.job import say
from ridgeline_recipes.template import Encoded

T = TypeVar("T")


@dataclass(frozen=True)
class Row(Generic[T]):
    """A record, where it was read, and the sequences that it became."""

    record: T
    place: str
    encoded: tuple[Encoded, ...]


def learnable(
    rows: Sequence[Row[T]], what: str, max_length: int, *, required: bool
) -> list[Row[T]]:
    """The rows of which each sequence has something to learn; logs which have not, and how many of
    the others are cut. ``what`` names the rows in a sentence.

    Raises RecipeFailed if they are ``required`` and nothing is left of any.
    """
    kept = [row for row in rows if all(each.learned for each in row.encoded)]
    lost = listed([row.place for row in rows if not all(each.learned for each in row.encoded)])
    why = f"the prompt alone fills max_length={max_length} tokens"
    advice = "Raise max_length or shorten the prompts."
    if required and not kept:
        raise RecipeFailed(f"Nothing is left of the {what}: {why} ({lost}). {advice}")
    if lost:
        say(f"{len(rows) - len(kept)} of {len(rows)} {what} left out: {why} ({lost}). {advice}")
    cut = sum(any(each.cut for each in row.encoded) for row in kept)
    if cut:
        say(f"{cut} of {len(rows)} {what} are longer than max_length={max_length} and are cut")
    return kept
