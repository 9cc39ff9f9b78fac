"""A model's tokenizer and what the model directory says about it.

Reads tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json and
config.json. Knows nothing of engines or requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ridgeline_backends.encoding import TokenPair
from ridgeline_service.serving.llm.errors import LoadFailed
from ridgeline_service.serving.llm.text.coverage import coverage
from ridgeline_service.serving.llm.text.detokenizer import (
    ByteLevelDetokenizer,
    Detokenizer,
    SentencePieceDetokenizer,
    WindowDetokenizer,
)
from ridgeline_service.serving.llm.text.pieces import (
    Piece,
    PieceStyle,
    PieceTable,
    decoder_rules,
)
from ridgeline_service.serving.llm.text.template import ChatTemplate

Json = Mapping[str, object]

_MANY = 4096
"""Tokens whose text takes long enough to make that others can go on meanwhile."""


class TextTokenizer:
    """Text to ids and back. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Cutting and padding are decisions of a request here, never of a file.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        written = json.loads(tokenizer.to_str())
        rules = decoder_rules(written.get("decoder"))
        self._pieces = PieceTable(rules, tokenizer.id_to_token, self.special_ids)
        self.coverage = coverage(written)
        """How much text a token stands for, None where that has no bound."""

    @property
    def vocabulary_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        [ids] = self.encode_all([text], add_special_tokens=add_special_tokens)
        return ids

    def encode_all(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Token ids of each text, made without the interpreter's lock, which a single `encode` of
        the library keeps for as long as it takes."""
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [one.ids for one in found]

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], *, at_most: int | None = None
    ) -> list[TokenPair]:
        """Two texts as one sequence each, as the model was trained to read them.

        With ``at_most`` the second text is cut to keep a pair within so many tokens, as far as the
        first leaves room.
        """
        added = self._tokenizer.num_special_tokens_to_add(True)
        made: list[TokenPair] = []
        texts = [text for pair in pairs for text in pair]
        # A batch, for it gives up the interpreter's lock.
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for one, other in zip(found[::2], found[1::2], strict=True):
            if at_most is not None:
                other.truncate(max(0, at_most - added - len(one.ids)))
            both = self._tokenizer.post_process(one, other)
            made.append(TokenPair(both.ids, both.type_ids))
        return made

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """The text of a whole sequence, with or without special tokens."""
        ids, skip = list(token_ids), not special
        if len(ids) > _MANY:
            # As with encoding, a batch gives up the interpreter's lock.
            [text] = self._tokenizer.decode_batch([ids], skip_special_tokens=skip)
        else:
            text = self._tokenizer.decode(ids, skip_special_tokens=skip)
        return str(text)

    def detokenizer(
        self, prompt: Sequence[int], shown: frozenset[int] = frozenset()
    ) -> Detokenizer:
        """For the text that continues ``prompt``. Special tokens are left out but for ``shown``."""
        style = self._pieces.rules.style
        if style is PieceStyle.BYTE_LEVEL:
            return ByteLevelDetokenizer(self._pieces, shown)
        if style is PieceStyle.SENTENCEPIECE:
            visible = any(not self._pieces[token_id].special for token_id in reversed(prompt))
            return SentencePieceDetokenizer(self._pieces, at_start=not visible, shown=shown)
        hidden = self.special_ids - shown

        def decode(ids: Sequence[int]) -> str:
            return self.decode([one for one in ids if one not in hidden], special=True)

        return WindowDetokenizer(decode, prompt)

    def piece(self, token_id: int) -> Piece:
        return self._pieces[token_id]

    def to_json(self) -> str:
        """The tokenizer as tokenizer.json has it."""
        written: str = self._tokenizer.to_str()
        return written

    def id_of(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found


def load_tokenizer(model_dir: Path) -> TextTokenizer:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        raise LoadFailed(
            "The model directory has no tokenizer.json.",
            hint="Save the model with a fast tokenizer (tokenizer.save_pretrained).",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception for every fault of the file.
    except Exception as error:  # noqa: BLE001
        raise LoadFailed(f"tokenizer.json cannot be read: {error}") from None
    return TextTokenizer(tokenizer)


def load_chat_template(model_dir: Path, tokenizer_config: Json) -> ChatTemplate | None:
    """The model's template for conversations, or None for a model that has none."""
    path = model_dir / "chat_template.jinja"
    source = path.read_text() if path.is_file() else _default(tokenizer_config.get("chat_template"))
    if source is None:
        return None
    return ChatTemplate(source, special_tokens(tokenizer_config))


def special_tokens(tokenizer_config: Json) -> dict[str, str]:
    """``bos_token`` and its kin; each is written as a string or as an added-token object."""
    found = {}
    for name, value in tokenizer_config.items():
        content = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(content, str):
            found[name] = content
    return found


def eos_token_ids(
    config: Json, generation_config: Json, tokenizer_config: Json, tokenizer: TextTokenizer
) -> frozenset[int]:
    """Every token that ends a generation: the configs' ids and the tokenizer's own."""
    declared = generation_config.get("eos_token_id")
    ids = set(_ids(config.get("eos_token_id") if declared is None else declared))
    own = special_tokens(tokenizer_config).get("eos_token")
    if own is not None and (own_id := tokenizer.id_of(own)) is not None:
        ids.add(own_id)
    return frozenset(ids)


def read_json(path: Path) -> dict[str, object]:
    """A JSON object of the model directory; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise LoadFailed(f"{path.name} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise LoadFailed(f"{path.name} holds no JSON object.")
    return value


def _ids(value: object) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [item for item in listed if isinstance(item, int)]


def _default(template: object) -> str | None:
    if isinstance(template, str):
        return template
    if not isinstance(template, list):
        return None
    named = {
        entry.get("name"): entry.get("template")
        for entry in template
        if isinstance(entry, dict) and isinstance(entry.get("template"), str)
    }
    return named.get("default") or next(iter(named.values()), None)
