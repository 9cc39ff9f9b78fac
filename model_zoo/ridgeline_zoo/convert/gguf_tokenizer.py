"""Tokenizer files from a GGUF's metadata.

A GGUF carries vocabulary and merges, but of the pre-tokenizer only a name. The names known here
are spelled out; an unknown one is refused, for a wrong split gives wrong tokens without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import PreTokenizer

from ridgeline_zoo.card import Json
from ridgeline_zoo.convert.gguf_weights import GgufModel
from ridgeline_zoo.errors import CannotConvert

_CONTROL = 3
_USER_DEFINED = 4

# The split of Llama 3's published tokenizer.json.
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, _byte_level()])


def _llama3() -> PreTokenizer:
    split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated", invert=False)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, level])


PRE_TOKENIZERS: Mapping[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _byte_level,
    "smollm": _smollm,
    "llama-bpe": _llama3,
}


def build_tokenizer(model: GgufModel) -> Tokenizer:
    """The tokenizer, equal to the one the model was published with.

    Raises CannotConvert for a vocabulary or a pre-tokenizer that is not known here.
    """
    kind = model.require("tokenizer.ggml.model")
    pre = model.metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise CannotConvert(
            f"{model.name} has the tokenizer {kind!r} with the pre-tokenizer {pre!r}",
            hint=f"Known: gpt2 with {', '.join(PRE_TOKENIZERS)}. Use the model's safetensors.",
        )
    tokens: list[str] = model.require("tokenizer.ggml.tokens")
    merges = [_merge(line, model.name) for line in model.require("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    types: list[int] = model.metadata.get("tokenizer.ggml.token_type", [])
    for token, token_type in zip(tokens, types, strict=False):
        if token_type == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif token_type == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    if model.metadata.get("tokenizer.ggml.add_bos_token"):
        index = int(model.require("tokenizer.ggml.bos_token_id"))
        bos = tokens[index]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, index)]
        )
    return tokenizer


def tokenizer_config(model: GgufModel) -> dict[str, Json]:
    """The ``tokenizer_config.json``: special tokens by name, and the chat template."""
    tokens: list[str] = model.require("tokenizer.ggml.tokens")
    config: dict[str, Json] = {
        # The class that takes tokenizer.json as it is; a model's own may rebuild parts of it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(model.require("llama.context_length")),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = model.metadata.get(f"tokenizer.ggml.{key}_token_id")
        config[f"{name}_token"] = None if index is None else tokens[int(index)]
    template = model.metadata.get("tokenizer.chat_template")
    if template:
        config["chat_template"] = template
    return config


def generation_config(model: GgufModel) -> dict[str, Json]:
    """The ``generation_config.json``: only the special tokens; sampling is the caller's."""
    config: dict[str, Json] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        index = model.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{name}_token_id"] = int(index)
    return config


def _merge(line: str, origin: str) -> tuple[str, str]:
    left, space, right = line.partition(" ")
    if not space or " " in right:
        raise CannotConvert(f"{origin} has a merge that is not two tokens: {line!r}")
    return left, right
