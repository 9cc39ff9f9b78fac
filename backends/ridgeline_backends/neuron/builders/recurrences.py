"""Layers that keep a state instead of keys and values, by their sizes in config.json.

They stand as attention over a few keys with one head of them, whose matrices hold as many numbers
as the layer has: a decode step reads those, whatever its context. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ridgeline_backends.models.reader import Reader
from ridgeline_backends.neuron.builders.architecture import SelfAttention

STATE = 64
"""Keys that stand for a state."""


def recurrence(
    config: Mapping[str, object], kind: str, *, hidden: int, heads: int
) -> SelfAttention | None:
    """None where the config gives no sizes of such a layer. Raises `InvalidModel`."""
    read = Reader(config)
    if kind == "linear_attention" and str(config.get("model_type")).startswith("minimax"):
        count: Callable[[Reader, int], int] | None = _lightning
    else:
        count = next((numbers for name, numbers in _NUMBERS if config.get(name) is not None), None)
    if count is None:
        return None
    dim = max(1, round(count(read, hidden) / (2 * hidden * (heads + 1))))
    return SelfAttention(
        heads=heads, kv_heads=1, head_dim=dim, scale=dim**-0.5, window=STATE, kept=STATE
    )


def _mamba(read: Reader, hidden: int) -> int:
    """Gu and Dao 2023, arXiv 2312.00752, as Jamba has it."""
    inner, state = read.integer("mamba_expand", 2) * hidden, read.integer("mamba_d_state", 16)
    given = read.config.get("mamba_dt_rank", "auto")
    rank = -(-hidden // 16) if given == "auto" else read.integer("mamba_dt_rank")
    through = 3 * hidden + 2 * rank + 3 * state + read.integer("mamba_d_conv", 4)
    return inner * through


def _mamba_2(read: Reader, hidden: int) -> int:
    """Dao and Gu 2024, arXiv 2405.21060."""
    heads, inner = read.integer("mamba_n_heads"), read.integer("mamba_expand", 2) * hidden
    if read.config.get("mamba_d_head", "auto") != "auto":
        inner = heads * read.integer("mamba_d_head")
    shared = 2 * read.integer("mamba_n_groups", 1) * read.integer("mamba_d_state", 256)
    taken = 2 * inner + shared + heads
    return hidden * (taken + inner) + (inner + shared) * read.integer("mamba_d_conv", 4)


def _delta_net(read: Reader, hidden: int) -> int:
    """Yang et al. 2024, arXiv 2412.06464, as Qwen3-Next has it."""
    heads = read.integer("linear_num_value_heads")
    keys = read.integer("linear_num_key_heads") * read.integer("linear_key_head_dim")
    values = heads * read.integer("linear_value_head_dim")
    made = 2 * keys + values
    turned = made * read.integer("linear_conv_kernel_dim", 4)
    return hidden * (made + 2 * values + 2 * heads) + turned


def _lightning(read: Reader, hidden: int) -> int:
    """MiniMax-01, arXiv 2501.08313: queries, keys, values, a gate and what joins them."""
    heads = read.integer("num_attention_heads")
    return 5 * hidden * heads * read.integer("head_dim", hidden // heads)


def _gated_unit(read: Reader, hidden: int) -> int:
    """De et al. 2024, arXiv 2402.19427: gates are cut into a block for each head."""
    width = read.integer("lru_width", hidden)
    block = width // read.integer("num_attention_heads")
    return width * (3 * hidden + 2 * block + read.integer("conv1d_width", 4))


def _short_convolution(read: Reader, hidden: int) -> int:
    """LFM2: three gates and a convolution of a few tokens."""
    return hidden * (4 * hidden + read.integer("conv_L_cache"))


_NUMBERS: tuple[tuple[str, Callable[[Reader, int], int]], ...] = (
    ("linear_num_value_heads", _delta_net),
    ("mamba_n_heads", _mamba_2),
    ("mamba_d_state", _mamba),
    ("lru_width", _gated_unit),
    ("conv_L_cache", _short_convolution),
)
"""What a family is known by, and how many numbers one of its layers has."""
