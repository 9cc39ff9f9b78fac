"""The catalogue: all cards that are known here, found by id, by hub id or by words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ridgeline.errors import did_you_mean
from ridgeline_zoo.card import Card
from ridgeline_zoo.errors import CardInvalid, UnknownModel
from ridgeline_zoo.schema import parse_card


@dataclass(frozen=True)
class Catalog:
    """An ordered, read-only set of cards with unique ids."""

    cards: tuple[Card, ...]

    def __iter__(self) -> Iterator[Card]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)

    def get(self, model_id: str) -> Card:
        """The card of that id, in which dots may stand for dashes (``llama-3.2-1b-instruct``).

        Raises UnknownModel with the nearest ids as a hint.
        """
        wanted = model_id.casefold().replace(".", "-")
        for card in self.cards:
            if card.id == wanted:
                return card
        hint = did_you_mean(wanted, [card.id for card in self.cards])
        if not hint.startswith("Did you mean"):
            hint = f"Known: {', '.join(card.id for card in self.cards if card.published)}."
        raise UnknownModel(f"there is no model {model_id!r} in the zoo", hint=hint)

    def by_source(self, hub_id: str) -> Card | None:
        """The card that stands for a hub repository (``org/name``, case as the hub ignores it)."""
        wanted = hub_id.casefold()
        for card in self.cards:
            if card.hub_id is not None and card.hub_id.casefold() == wanted:
                return card
        return None

    def search(self, query: str = "") -> tuple[Card, ...]:
        """Cards in which every word of the query occurs, those with it in the id first."""
        words = query.casefold().split()
        found = [card for card in self.cards if all(word in _haystack(card) for word in words)]
        return tuple(sorted(found, key=lambda card: not all(w in card.id for w in words)))


def load_cards(extra_dirs: Sequence[Path] = ()) -> Catalog:
    """The bundled cards and those in ``extra_dirs``; a later card replaces one of the same id.

    Raises CardInvalid for the first file that is not a card, and if one folder names an id twice.
    """
    by_id = _read(
        (entry.name, entry.read_text(encoding="utf-8"))
        for entry in files("ridgeline_zoo").joinpath("cards").iterdir()
        if entry.name.endswith(".yaml")
    )
    for directory in extra_dirs:
        by_id |= _read((str(path), _text(path)) for path in _card_files(directory))
    return Catalog(tuple(sorted(by_id.values(), key=lambda card: card.id)))


def _read(named_texts: Iterable[tuple[str, str]]) -> dict[str, Card]:
    by_id: dict[str, Card] = {}
    for origin, text in sorted(named_texts):
        card = parse_card(text, origin)
        if card.id in by_id:
            raise CardInvalid(origin, [f"id: {card.id!r} is already the id of another card here"])
        by_id[card.id] = card
    return by_id


def _card_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise CardInvalid(str(directory), ["there is no such folder of cards"])
    return [path for path in directory.iterdir() if path.suffix in {".yaml", ".yml"}]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CardInvalid(str(path), [f"not UTF-8 text: {error}"]) from error


def _haystack(card: Card) -> str:
    parts = (card.id, card.title, card.description, card.task, card.family, card.hub_id or "")
    return " ".join((*parts, *card.keywords)).casefold()
