"""Whether training fits into memory, before anything is loaded: what it needs by kind, and if that
is too much, the nearest setting that fits.

Weights, gradients and the optimizer's state are exact. What the layers remember for the way back is
reckoned per token, by factors that agree with SmolLM2 on a CPU (batches of 8 x 128) to 12%. Reads
config.json and the heads of safetensors.
"""

from __future__ import annotations

import json
import resource
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ridgeline_recipes.failing import RecipeFailed

GIB = 1 << 30

_WIDTHS = {"bf16": 2, "fp32": 4}
_PROGRAM = int(0.75 * GIB)  # torch, transformers and trl themselves, and torch's work space
_FP32 = 4
_KEPT_HIDDEN = 14  # rows of the hidden size that a layer keeps per token, in its own type
_KEPT_INNER = 5
_LOGIT_COPIES = 3
_RANK = 16  # of the adapter that is proposed in place of all weights
_SHORTEST = 64  # tokens that a proposed max_length leaves at least
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class ModelSize:
    """What memory depends on. ``adapted`` is the sum of inputs and outputs of the linear maps that
    an adapter of rank 1 would have, over all layers; ``inputs`` that of one layer's inputs."""

    parameters: int
    layers: int
    hidden: int
    inner: int
    vocabulary: int
    adapted: int
    inputs: int


@dataclass(frozen=True)
class Setting:
    """``tokens`` is the length of the longest sequence after cutting, ``sequences`` how many a
    record becomes. ``rank`` 0 trains all weights. ``logits`` says whether the model scores its
    vocabulary at every token. ``records`` is how many there are, which may be fewer than a batch
    holds; None: more than that."""

    dtype: str
    rank: int
    batch_size: int
    gradient_accumulation: int
    tokens: int
    gradient_checkpointing: bool
    sequences: int = 1
    logits: bool = True
    records: int | None = None

    @property
    def at_once(self) -> int:
        """Records of the largest batch."""
        return self.batch_size if self.records is None else min(self.batch_size, self.records)


@dataclass(frozen=True)
class Need:
    """Bytes by kind."""

    program: int
    weights: int
    training: int
    layers: int
    logits: int

    @property
    def total(self) -> int:
        return self.program + self.weights + self.training + self.layers + self.logits

    def __str__(self) -> str:
        return (
            f"{_gib(self.total)} (weights {_gib(self.weights)}, gradients and optimizer "
            f"{_gib(self.training)}, layers {_gib(self.layers)}, logits {_gib(self.logits)}, "
            f"program {_gib(self.program)})"
        )


def need(model: ModelSize, setting: Setting) -> Need:
    """Peak memory of a training step, as if all records of its batch were as long as the longest of
    all: batches are filled up to their own longest."""
    width = _WIDTHS[setting.dtype]
    if setting.rank:
        # An adapter is fp32 whatever its base: itself, its gradient, two moments.
        training = 4 * _FP32 * setting.rank * model.adapted
    else:
        training = 3 * width * model.parameters
    rows = setting.at_once * setting.sequences * setting.tokens
    per_layer = width * (_KEPT_HIDDEN * model.hidden + _KEPT_INNER * model.inner)
    if setting.rank:
        per_layer += _FP32 * model.inputs  # the inputs of adapted products, kept once more
    kept = model.layers * per_layer
    if setting.gradient_checkpointing:
        kept = model.layers * width * model.hidden + per_layer
    logits = _LOGIT_COPIES * _FP32 * model.vocabulary if setting.logits else 0
    return Need(
        program=_PROGRAM,
        weights=width * model.parameters,
        training=training,
        layers=rows * kept,
        logits=rows * logits,
    )


def require_fit(model: ModelSize, setting: Setting, available: int) -> Need:
    """What the setting needs. Raises RecipeFailed with both numbers, and the nearest setting that
    fits, where that is more than ``available`` bytes."""
    needed = need(model, setting)
    if needed.total <= available:
        return needed
    message = (
        f"Training needs about {needed}, and {_gib(available)} are free for this job. "
        f"Nothing was trained."
    )
    for other in _nearest(setting):
        other_need = need(model, other)
        if other_need.total <= available:
            raise RecipeFailed(
                f"{message} The nearest setting that fits, with {_gib(other_need.total)}: "
                f"{_difference(setting, other)}."
            )
    least = min(need(model, other).total for other in _nearest(setting))
    raise RecipeFailed(
        f"{message} No setting of this recipe fits: the least is {_gib(least)}. Choose a larger "
        "instance type or a smaller base model."
    )


def available_memory() -> int:
    """Bytes that this process may still take: by its own limit, its control group, the machine."""
    found = [_free()]
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        found.append(limit)
    try:
        most = (_CGROUP / "memory.max").read_text().strip()
        if most.isdigit():
            found.append(int(most) - int((_CGROUP / "memory.current").read_text()))
    except OSError:
        pass  # no control group of version 2, hence no limit by one
    return min(found)


def model_size(folder: Path) -> ModelSize:
    """Of a model folder. Raises RecipeFailed if it does not say."""
    config = json.loads((folder / "config.json").read_text())
    hidden, layers = _size(config, "hidden_size"), _size(config, "num_hidden_layers")
    inner, heads = _size(config, "intermediate_size"), _size(config, "num_attention_heads")
    head = config.get("head_dim") or hidden // heads
    own, shared = heads * head, (config.get("num_key_value_heads") or heads) * head
    ends = (hidden + own) * 2 + (hidden + shared) * 2 + (hidden + inner) * 3
    return ModelSize(
        parameters=sum(_parameters(path) for path in sorted(folder.glob("*.safetensors"))),
        layers=layers,
        hidden=hidden,
        inner=inner,
        vocabulary=_size(config, "vocab_size"),
        adapted=layers * ends,
        inputs=3 * hidden + own + 2 * hidden + inner,
    )


def _nearest(setting: Setting) -> Iterator[Setting]:
    """Other settings, those first that change least what is learned: the same step in smaller
    parts, then in more time, then in bf16 or with an adapter, then with shorter records."""
    for checkpointing in sorted({setting.gradient_checkpointing, True}):
        for parts in range(2 - checkpointing, setting.batch_size + 1):
            if setting.batch_size % parts == 0:
                yield replace(
                    setting,
                    batch_size=setting.batch_size // parts,
                    gradient_accumulation=setting.gradient_accumulation * parts,
                    gradient_checkpointing=checkpointing,
                )
    least = replace(
        setting,
        dtype="bf16",
        rank=setting.rank or _RANK,
        batch_size=1,
        gradient_accumulation=setting.gradient_accumulation * setting.batch_size,
        gradient_checkpointing=True,
    )
    yield least
    tokens = setting.tokens // 2
    while tokens >= _SHORTEST:
        yield replace(least, tokens=tokens)
        tokens //= 2


def _difference(setting: Setting, other: Setting) -> str:
    """The hyperparameters that make ``other`` of ``setting``."""
    found = []
    if other.rank and not setting.rank:
        found.append("method=lora")
    for name in ("dtype", "batch_size", "gradient_accumulation"):
        if getattr(other, name) != getattr(setting, name):
            found.append(f"{name}={getattr(other, name)}")
    if other.gradient_checkpointing and not setting.gradient_checkpointing:
        found.append("gradient_checkpointing=true")
    if other.tokens != setting.tokens:
        found.append(f"max_length={other.tokens}")
    return " ".join(found)


def _parameters(path: Path) -> int:
    """The numbers in a safetensors file, by its head."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise RecipeFailed(f"{path.name} is no safetensors file.")
        head: Mapping[str, Mapping[str, object]] = json.loads(file.read(length))
    total = 0
    for name, tensor in head.items():
        if name == "__metadata__":
            continue
        size = 1
        shape = tensor["shape"]
        assert isinstance(shape, list)
        for extent in shape:
            size *= int(extent)
        total += size
    return total


def _size(config: Mapping[str, object], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value <= 0:
        raise RecipeFailed(f"The base model's config.json has no {name}: {value!r}.")
    return value


def _free() -> int:
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RecipeFailed("/proc/meminfo does not say how much memory is free.")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
