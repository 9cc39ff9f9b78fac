"""``seeded://llama?seed=N``: a tiny model with random weights, the same for ever, for tests.

The numbers come from Philox's raw bits, which are a published algorithm, not from a library's
distributions, which may change with its version. The model talks nonsense, quickly.
"""

from __future__ import annotations

import json
import math
from urllib.parse import parse_qs, urlsplit

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ridgeline_zoo.card import Json
from ridgeline_zoo.convert.safetensors_file import TensorPlan, to_bytes, write_safetensors
from ridgeline_zoo.errors import BadSource
from ridgeline_zoo.sources.base import FetchRequest, Source

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Enough for words to be cut in more than one way, which is what tests of tokenisation want.
# fmt: off
_MERGES = (
    "t h", "i n", "e r", "a n", "o n", "n d", "r e", "e s", "e d", "i s",
    "o u", "l l", "o r", "h e", "l d", "Ġ a", "Ġ t", "Ġ w", "Ġ s", "Ġt he",
    "Ġa nd", "in g", "or ld", "Ġw orld", "he ll", "hell o", "Ġ hello", "i t", "Ġ in",
)
# fmt: on
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class SeededSource(Source):
    """Weights made on the spot, of the shape the card's config gives."""

    def fetch(self, request: FetchRequest) -> None:
        parts = urlsplit(f"seeded://{request.location}")
        seeds = parse_qs(parts.query).get("seed", ["0"])
        if parts.netloc != "llama" or not seeds[0].isdigit():
            raise BadSource(
                f"seeded://{request.location} cannot be made",
                hint="The form is seeded://llama?seed=N.",
            )
        tokenizer = seeded_tokenizer()
        config = _config(request, tokenizer.get_vocab_size())
        plans = _plans(config, int(seeds[0]))
        total = sum(plan.size for plan in plans)
        done = 0

        def wrote(size: int) -> None:
            nonlocal done
            done += size
            request.progress("download", done, total)

        write_safetensors(request.into / "model.safetensors", plans, wrote=wrote)
        tokenizer.save(str(request.into / "tokenizer.json"))
        documents: dict[str, dict[str, Json]] = {
            "config.json": config,
            "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": config["max_position_embeddings"],
                "bos_token": SPECIAL_TOKENS[1],
                "eos_token": SPECIAL_TOKENS[2],
                "unk_token": SPECIAL_TOKENS[0],
                "pad_token": SPECIAL_TOKENS[2],
                "chat_template": _CHAT_TEMPLATE,
            },
        }
        for name, document in documents.items():
            (request.into / name).write_text(json.dumps(document, indent=2), encoding="utf-8")


def seeded_tokenizer() -> Tokenizer:
    """A byte-level BPE that can spell any text: three special tokens, 256 bytes, some merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    for line in _MERGES:
        left, _, right = line.partition(" ")
        merges.append((left, right))
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def _config(request: FetchRequest, vocabulary: int) -> dict[str, Json]:
    config: dict[str, Json] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
        **request.config,
    }
    if config.get("model_type") != "llama" or config.get("vocab_size") != vocabulary:
        raise BadSource(
            f"seeded://{request.location} makes a llama with a vocab_size of {vocabulary}, the "
            f"card asks for {config.get('model_type')} with {config.get('vocab_size')}"
        )
    return config


def _plans(config: dict[str, Json], seed: int) -> list[TensorPlan]:
    def size(name: str) -> int:
        return int(str(config[name]))

    hidden, middle, vocabulary = size("hidden_size"), size("intermediate_size"), size("vocab_size")
    queries = size("num_attention_heads") * size("head_dim")
    keys = size("num_key_value_heads") * size("head_dim")
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(size("num_hidden_layers")):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}self_attn.q_proj.weight": (queries, hidden),
            f"{prefix}self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}self_attn.v_proj.weight": (keys, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, queries),
            f"{prefix}mlp.gate_proj.weight": (middle, hidden),
            f"{prefix}mlp.up_proj.weight": (middle, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, middle),
        }
    names = sorted(shapes)
    return [_random(name, shapes[name], key) for key, name in enumerate(names, start=seed << 32)]


def _random(name: str, shape: tuple[int, ...], key: int) -> TensorPlan:
    def produce() -> bytes:
        raw = np.random.Philox(key=key).random_raw(math.prod(shape))
        uniform = (raw >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        if len(shape) == 1:
            # Norm weights lie around one.
            return to_bytes(np.float32(0.9) + uniform * np.float32(0.2), "bf16")
        # A uniform spread of this width keeps the variance of activations near one; the
        # embedding is wider, so that logits differ enough for greedy text to be stable.
        width = 2.0 if "embed" in name else 2 * math.sqrt(3 / shape[-1])
        return to_bytes((uniform - np.float32(0.5)) * np.float32(width), "bf16")

    return TensorPlan(name, shape, "BF16", produce)
