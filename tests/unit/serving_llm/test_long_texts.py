"""Texts that are too long: refused before they are tokenised, and nobody waits for them."""

from __future__ import annotations

import json
from threading import Event, Thread
from time import sleep
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.text.coverage import Coverage, coverage
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

LONG = "x" * 100_000


def byte_level(
    *extra: str, normalizer: Any = None, added: AddedToken | None = None
) -> dict[str, Any]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate([*letters, *extra])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if added is not None:
        tokenizer.add_special_tokens([added])
    made: dict[str, Any] = json.loads(tokenizer.to_str())
    return made


def byte_fallback(**model: Any) -> dict[str, Any]:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["<unk>", "▁the"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    options = {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True, **model}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], **options))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made: dict[str, Any] = json.loads(tokenizer.to_str())
    return made


def word_piece() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).to_str()
    )
    return made


@pytest.mark.parametrize(
    ("tokenizer", "most"),
    [
        (byte_level("abcdefg"), 7),
        (byte_level("abcdefg", added=AddedToken("<|begin|>", special=True)), 9),
        (byte_level("ab", normalizer=normalizers.NFC()), 8),
        (byte_fallback(), 6),
        # Each of these may stand for any number of characters.
        (byte_level(added=AddedToken("<mask>", lstrip=True)), None),
        (byte_level(normalizer=normalizers.Strip()), None),
        (byte_level(normalizer=normalizers.Replace("  ", " ")), None),
        (byte_level(normalizer=normalizers.StripAccents()), None),
        (byte_fallback(byte_fallback=False), None),
        (word_piece(), None),
    ],
)
def test_how_much_text_a_token_can_stand_for(tokenizer: dict[str, Any], most: int | None) -> None:
    found = coverage(tokenizer)
    assert found == (None if most is None else Coverage(most))


def test_characters_without_a_token_do_not_count() -> None:
    """Some vocabularies lack bytes; a text of those is empty, however long."""
    tokenizer = byte_level("abcdefg")
    vocabulary = tokenizer["model"]["vocab"]
    del vocabulary["Ā"], vocabulary["À"]  # the letters of the bytes 0x00 and 0xC0
    found = coverage(tokenizer)
    assert found == Coverage(7, "\0")
    assert not found.exceeds("\0" * 1000 + "x" * 70, 10)
    assert found.exceeds("\0" * 1000 + "x" * 71, 10)
    del vocabulary["Ģ"]  # 0x80, which continues characters
    assert coverage(tokenizer) is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": LONG}, "prompt"),
        ("/v1/completions", {"prompt": ["x", LONG]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        ("/invocations", {"inputs": LONG}, "inputs"),
    ],
)
def test_a_hopeless_text_is_refused_untouched(
    served: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: object, param: str
) -> None:
    monkeypatch.setattr(TextTokenizer, "encode_all", None)
    monkeypatch.setattr(TextTokenizer, "encode", None)
    reply = served.post(path, body)
    assert reply.status == 400
    if path != "/invocations":
        assert reply.json["error"]["code"] == "context_length_exceeded"
        assert reply.json["error"]["param"] == param
    assert f"{param} has more than 60 tokens; this endpoint takes at most 60." in str(reply.json)


def test_a_text_that_is_to_be_cut_is_read(served: Any, of: Any) -> None:
    reply = served.post("/invocations", {"inputs": LONG, "parameters": {"truncate": 5}})
    assert reply.status == 200
    assert len(served.engine.submitted[-1].prompt) == 5
    embedder = of("embedding", Flavour.TGI)
    assert embedder.post("/invocations", {"inputs": LONG, "truncate": True}).status == 200


def test_others_go_on_while_a_long_text_is_tokenised(tokenizer: TextTokenizer) -> None:
    """A thread that wakes every millisecond is never kept from it for long."""
    done = Event()
    ticks: list[int] = []

    def count() -> None:
        while not done.is_set():
            sleep(0.001)
            ticks.append(1)

    counter = Thread(target=count)
    counter.start()
    try:
        before = len(ticks)
        tokenizer.encode("a quick brown fox " * 60_000, add_special_tokens=False)
        during = len(ticks) - before
    finally:
        done.set()
        counter.join()
    assert during > 10


def test_a_medium_text_passes_a_long_one(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text that is being tokenised leaves a way for another."""
    began, release = Event(), Event()
    real = TextTokenizer.encode_all

    def slow(self: TextTokenizer, texts: Any, *, add_special_tokens: bool) -> list[list[int]]:
        if any(text.startswith("slow") for text in texts):
            began.set()
            assert release.wait(20)
        return real(self, texts, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(TextTokenizer, "encode_all", slow)
    served = start()
    first = Thread(target=served.post, args=("/v1/tokenize", {"prompt": "slow" + "x" * 5000}))
    first.start()
    try:
        assert began.wait(20)
        reply = served.post("/v1/tokenize", {"prompt": "y" * 5000})
        assert reply.json["count"] == 5000
    finally:
        release.set()
        first.join()
