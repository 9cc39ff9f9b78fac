"""What bytes a token stands for, read from a tokenizer's ``decoder``.

Two families of decoders are understood byte for byte: byte-level (GPT-2, Llama 3, SmolLM2, Qwen)
and sentencepiece (Llama 2, Mistral, Gemma, T5). For any other, `PieceTable.style` is OPAQUE and the
bytes are those of the vocabulary entry, good enough for showing a token but not for joining them.
Knows nothing of sequences: joining tokens is the work of `detokenizer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

_WORD_MARK = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class PieceStyle(Enum):
    BYTE_LEVEL = "byte-level"
    SENTENCEPIECE = "sentencepiece"
    OPAQUE = "opaque"


class LeadingSpace(Enum):
    """What a decoder does to white space at the very start of a text."""

    KEEP = "keep"
    STRIP_ONE = "strip one"
    STRIP_MARKS = "strip the word marks of the first token"


@dataclass(frozen=True, slots=True)
class DecoderRules:
    """The part of a tokenizer's ``decoder`` that detokenisation needs."""

    style: PieceStyle
    byte_fallback: bool = False
    leading: LeadingSpace = LeadingSpace.KEEP


@dataclass(frozen=True, slots=True)
class Piece:
    """One token. ``raw_byte`` marks a byte-fallback token: part of a character, perhaps."""

    data: bytes
    special: bool = False
    raw_byte: bool = False


def decoder_rules(decoder: Mapping[str, object] | None) -> DecoderRules:
    """Classify the ``decoder`` object of a tokenizer.json."""
    steps = list(_steps(decoder))
    kinds = [step.get("type") for step in steps]
    if kinds and set(kinds) == {"ByteLevel"}:
        return DecoderRules(PieceStyle.BYTE_LEVEL)
    if kinds == ["Metaspace"] and steps[0].get("replacement", _WORD_MARK) == _WORD_MARK:
        kept = steps[0].get("prepend_scheme", "always") == "never"
        kept = kept or steps[0].get("add_prefix_space") is False
        return DecoderRules(
            PieceStyle.SENTENCEPIECE,
            leading=LeadingSpace.KEEP if kept else LeadingSpace.STRIP_MARKS,
        )
    if kinds and kinds[0] == "Replace" and all(_is_sentencepiece_step(step) for step in steps):
        strips = "Strip" in kinds
        return DecoderRules(
            PieceStyle.SENTENCEPIECE,
            byte_fallback="ByteFallback" in kinds,
            leading=LeadingSpace.STRIP_ONE if strips else LeadingSpace.KEEP,
        )
    return DecoderRules(PieceStyle.OPAQUE)


class PieceTable:
    """The pieces of one vocabulary, made when first asked for and kept."""

    def __init__(
        self, rules: DecoderRules, id_to_token: Callable[[int], str | None], special: Iterable[int]
    ) -> None:
        self.rules = rules
        self._id_to_token = id_to_token
        self._special = frozenset(special)
        self._made: dict[int, Piece] = {}

    def __getitem__(self, token_id: int) -> Piece:
        """The piece of a token; an id outside the vocabulary stands for no bytes."""
        piece = self._made.get(token_id)
        if piece is None:
            piece = self._made[token_id] = self._make(token_id)
        return piece

    def _make(self, token_id: int) -> Piece:
        token = self._id_to_token(token_id)
        special = token_id in self._special
        if token is None:
            return Piece(b"", special=special)
        if self.rules.style is PieceStyle.BYTE_LEVEL:
            return Piece(_byte_level(token), special=special)
        if self.rules.style is PieceStyle.SENTENCEPIECE:
            match = _BYTE_TOKEN.fullmatch(token) if self.rules.byte_fallback else None
            if match:
                return Piece(bytes([int(match[1], 16)]), special=special, raw_byte=True)
            return Piece(token.replace(_WORD_MARK, " ").encode(), special=special)
        return Piece(token.encode(), special=special)


def _steps(decoder: Mapping[str, object] | None) -> Iterable[Mapping[str, object]]:
    if not decoder:
        return
    inner = decoder.get("decoders")
    if decoder.get("type") == "Sequence" and isinstance(inner, Sequence):
        for step in inner:
            if isinstance(step, Mapping):
                yield from _steps(step)
    else:
        yield decoder


def _is_sentencepiece_step(step: Mapping[str, object]) -> bool:
    kind = step.get("type")
    if kind == "Replace":
        return step.get("pattern") == {"String": _WORD_MARK} and step.get("content") == " "
    if kind == "Strip":
        shape = (step.get("content"), step.get("start"), step.get("stop"))
        return shape == (" ", 1, 0)
    return kind in ("ByteFallback", "Fuse")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins: visible Latin-1 bytes are themselves, the rest follow U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = (byte for byte in range(256) if byte not in visible)
    alphabet = {chr(byte): byte for byte in visible}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(hidden)})
    return alphabet


BYTE_OF = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([BYTE_OF[character] for character in token])
    except KeyError:
        # An added token is written as itself, and may hold characters outside the alphabet.
        return token.encode()
