"""How much text one token can stand for, at most: what tells without tokenising that a text is too
long.

Answers only for tokenizers that cannot shorten a text without bound: no normalizer or pre-tokenizer
that drops characters, no unknown token that stands for a whole word, no added token that swallows
the white space beside it. Reads the content of tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ridgeline_service.serving.llm.text.pieces import BYTE_OF

Part = Mapping[str, object]

_COMPOSED = 4
"""The most characters that become one by canonical composition (UAX #15: the longest canonical
decomposition has as many)."""

_NORMALIZERS = {"NFC": _COMPOSED, "NFKC": _COMPOSED, "NFD": 1, "NFKD": 1, "Prepend": 1}
"""Normalizers, and how many characters each makes one of."""

_NEVER_IN_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})

_PRE_TOKENIZERS = frozenset({"ByteLevel", "Digits", "Metaspace"})
_CUTTING = frozenset({"Split", "Punctuation"})


@dataclass(frozen=True, slots=True)
class Coverage:
    """A token stands for ``characters`` at most, those of ``dropped`` not counted, which leave no
    token at all."""

    characters: int
    dropped: str = ""

    def exceeds(self, text: str, tokens: int) -> bool:
        """Whether ``text`` has more than so many tokens, whatever they are."""
        most = self.characters * tokens
        return len(text) > most and len(text) - sum(map(text.count, self.dropped)) > most


def coverage(tokenizer: Part) -> Coverage | None:
    """What one token of tokenizer.json covers, or None where there is no bound to it."""
    model = _part(tokenizer.get("model"))
    vocabulary = model.get("vocab")
    if model.get("type") != "BPE" or not isinstance(vocabulary, Mapping):
        return None
    added = _parts(tokenizer.get("added_tokens"))
    if any(token.get("lstrip") or token.get("rstrip") for token in added):
        return None
    cutting = _flat(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if not all(_keeps_all(part) for part in cutting):
        return None
    byte_level = any(part.get("type") == "ByteLevel" for part in cutting)
    dropped = _dropped(vocabulary, model, byte_level=byte_level)
    shrunk = [_shrinks(part) for part in _flat(tokenizer.get("normalizer"), "normalizers")]
    if dropped is None or None in shrunk:
        return None
    pieces = [*vocabulary, *(str(token.get("content", "")) for token in added)]
    return Coverage(max(map(len, pieces)) * prod(filter(None, shrunk)), dropped)


def _keeps_all(part: Part) -> bool:
    kind = part.get("type")
    return kind in _PRE_TOKENIZERS or (kind in _CUTTING and part.get("behavior") != "Removed")


def _dropped(vocabulary: Part, model: Part, *, byte_level: bool) -> str | None:
    """The characters that have no token; None where more than some single bytes have none."""
    if byte_level:
        missing = {byte for letter, byte in BYTE_OF.items() if letter not in vocabulary}
    elif model.get("byte_fallback"):
        missing = {byte for byte in range(256) if f"<0x{byte:02X}>" not in vocabulary}
        # One byte that is missing makes its whole character unknown, and those fuse.
        if any(byte >= 0x80 for byte in missing - _NEVER_IN_UTF8):
            return None
    else:
        return None
    # Every other character has one of these in its UTF-8.
    if missing.intersection(range(0x80, 0xC0)):
        return None
    return "".join(chr(byte) for byte in sorted(missing) if byte < 0x80)


def _shrinks(normalizer: Part) -> int | None:
    kind = normalizer.get("type")
    if kind == "Replace":
        pattern, content = _part(normalizer.get("pattern")), normalizer.get("content")
        literal = pattern.get("String")
        longer = (
            isinstance(literal, str)
            and isinstance(content, str)
            and 0 < len(literal) <= len(content)
        )
        return 1 if longer else None
    return _NORMALIZERS.get(str(kind))


def _flat(value: object, members: str) -> list[Part]:
    """The parts of a sequence of parts; of a single one itself."""
    part = _part(value)
    if not part:
        return []
    if part.get("type") != "Sequence":
        return [part]
    return [inner for member in _parts(part.get(members)) for inner in _flat(member, members)]


def _part(value: object) -> Part:
    return value if isinstance(value, Mapping) else {}


def _parts(value: object) -> list[Part]:
    return [_part(one) for one in value] if isinstance(value, Iterable) else []
