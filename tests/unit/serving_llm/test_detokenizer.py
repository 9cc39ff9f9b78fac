"""Token by token, text comes out as a decode of the whole would have it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

UNICODE = st.text(max_size=40) | st.text(alphabet="aé€😀́ ▁\u200d\n", max_size=30)


def byte_alphabet() -> dict[int, str]:
    """The printable stand-in of each byte, learned from the library itself."""
    decoder = decoders.ByteLevel()
    from tokenizers.pre_tokenizers import ByteLevel

    found = {}
    for character in ByteLevel.alphabet():
        code = ord(character)
        if code < 0x100:
            found[code] = character
    hidden = sorted(set(ByteLevel.alphabet()) - set(found.values()))
    missing = [byte for byte in range(256) if byte not in found]
    found.update(zip(missing, hidden, strict=True))
    assert decoder.decode([found[ord("a")], found[ord(" ")]]) == "a "
    return found


ALPHABET = byte_alphabet()


def vocabulary(
    pieces: list[str], decoder: decoders.Decoder
) -> tuple[TextTokenizer, Tokenizer, list[int]]:
    """A tokenizer that has just these pieces, and the pieces as ids. Id 0 is special."""
    known = {"<s>": 0}
    ids = [known.setdefault(piece, len(known)) for piece in pieces]
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<s>"))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return TextTokenizer(tokenizer), tokenizer, ids


def incremental(text: TextTokenizer, prompt: list[int], ids: list[int]) -> str:
    detokenizer = text.detokenizer(prompt)
    parts = [detokenizer.push(token_id) for token_id in ids]
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text.decode(prompt + ids)
    return "".join(parts) + detokenizer.flush()


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, start = [], 0
    for size in sizes:
        if data[start : start + size]:
            parts.append(data[start : start + size])
        start += size
    return [*parts, data[start:]] if data[start:] else parts


@given(UNICODE, st.lists(st.integers(1, 5)), st.integers(0, 6))
def test_any_split_of_any_text_in_byte_level_tokens(text: str, sizes: list[int], at: int) -> None:
    parts = cut(text.encode(), sizes)
    pieces = ["".join(ALPHABET[byte] for byte in part) for part in parts]
    tokens, _, ids = vocabulary(pieces, decoders.ByteLevel())

    assert incremental(tokens, [], ids) == text
    # The same after a prompt, with a special token inside.
    ids = [*ids[:at], 0, *ids[at:]]
    assert incremental(tokens, [0], ids) == text


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=8))
def test_bytes_that_are_no_text_are_replaced_as_the_library_replaces_them(
    parts: list[bytes],
) -> None:
    pieces = ["".join(ALPHABET[byte] for byte in part) for part in parts]
    tokens, library, ids = vocabulary(pieces, decoders.ByteLevel())

    assert incremental(tokens, [], ids) == library.decode(ids)


SENTENCEPIECE = {
    "llama-2": decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    ),
    "gemma": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    ),
    "metaspace": decoders.Metaspace(),
    "metaspace-never": decoders.Metaspace(prepend_scheme="never"),
}


@pytest.mark.parametrize("decoder", SENTENCEPIECE.values(), ids=SENTENCEPIECE)
@given(
    words=st.lists(
        st.tuples(
            st.text(alphabet="ab é€▁", min_size=1, max_size=4) | st.sampled_from("😀€\n"),
            st.booleans(),
        ),
        max_size=8,
    ),
    split=st.integers(0, 8),
)
def test_sentencepiece_words_and_byte_tokens(
    decoder: decoders.Decoder, words: list[tuple[str, bool]], split: int
) -> None:
    fallback = "ByteFallback" in str(json.loads(vocabulary([], decoder)[1].to_str())["decoder"])
    pieces: list[str] = []
    for word, as_bytes in words:
        if as_bytes and fallback:
            pieces += [f"<0x{byte:02X}>" for byte in word.encode()]
        else:
            pieces.append(word.replace(" ", "▁"))
    tokens, library, ids = vocabulary(pieces, decoder)

    assert incremental(tokens, [], ids) == library.decode(ids)
    # A generation goes on where its prompt ended: no space is lost or won at the border, unless
    # the border cuts a character in two.
    prompt, rest = ids[:split], ids[split:]
    whole, start = library.decode(ids), library.decode(prompt)
    if "\ufffd" not in start:
        assert start + incremental(tokens, prompt, rest) == whole


def test_a_first_word_keeps_its_space_after_a_prompt_and_loses_it_without() -> None:
    tokens, _, ids = vocabulary(["▁Paris", "▁is"], SENTENCEPIECE["llama-2"])

    assert incremental(tokens, [], ids) == "Paris is"
    assert incremental(tokens, [0], ids) == "Paris is"
    assert incremental(tokens, [ids[1]], [ids[0]]) == " Paris"


def test_an_unfinished_character_is_held_until_the_end() -> None:
    half = "".join(ALPHABET[byte] for byte in "€".encode()[:2])
    tokens, _, ids = vocabulary([half], decoders.ByteLevel())
    detokenizer = tokens.detokenizer([])

    assert detokenizer.push(ids[0]) == ""
    assert detokenizer.flush() == "\ufffd"


@given(st.lists(st.sampled_from(["un", "##believ", "##able", "word", "##s", "."]), max_size=8))
def test_other_decoders_go_through_the_library(pieces: list[str]) -> None:
    tokens, library, ids = vocabulary(pieces, decoders.WordPiece(cleanup=False))

    assert incremental(tokens, [], ids) == library.decode(ids)


def test_ids_outside_the_vocabulary_stand_for_nothing() -> None:
    tokens, _, _ = vocabulary(["a"], decoders.ByteLevel())

    assert incremental(tokens, [], [1, 999, 1]) == "aa"
