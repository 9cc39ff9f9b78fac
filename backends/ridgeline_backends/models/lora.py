"""LoRA adapters in PEFT's format: adapter_config.json and adapter_model.safetensors.

An adapter adds B A x, scaled, to what a matrix makes of x (Hu et al., LoRA, arXiv 2106.09685). Here
it is read for the fused matrices of `LayerWeights`: the A of the parts under each other, their B on
the diagonal. Safetensors only; what would be applied wrongly is refused by its name in the
configuration. Knows no runner.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ridgeline_backends.errors import InvalidAdapter, InvalidModel
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.reader import read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_TENSOR = re.compile(
    r"base_model\.model\.(?P<module>(?:\w+\.)*?layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\."
    r"(?P<part>\w+))\.lora_(?P<side>[AB])(?:\.\w+)?\.weight"
)

_REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)
"""Settings that change what is computed beyond two matrices."""

_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the model itself alone; the others are made for a changed one."""

_WHOLE = ("qkv", "gate_up")
"""What some families keep as one matrix already."""

_PATTERN = re.compile(r"\^?[\w.]+")


@dataclass(frozen=True, slots=True)
class Adapter:
    """`layers[i]` has, for those of "qkv", "o", "gate_up" and "down" that the adapter changes, A
    [rank, in] and B [out, rank] in float32; B is scaled. `rank` is the largest in its files."""

    name: str
    rank: int
    layers: tuple[Mapping[str, tuple[Tensor, Tensor]], ...]


def read_adapter(name: str, directory: Path, config: DecoderConfig, *, max_rank: int) -> Adapter:
    """Read an adapter for a model of this configuration. Raises `InvalidAdapter`."""
    try:
        settings = _Settings(name, read_json(directory / CONFIG))
    except InvalidModel as error:
        raise InvalidAdapter(name, error.message, hint=error.hint) from error
    settings.check()
    sizes = _modules(config)
    # By layer and part: A and B.
    found: dict[tuple[int, str], dict[str, Tensor]] = {}
    modules: dict[tuple[int, str], str] = {}
    for key, tensor in _tensors(name, directory).items():
        match = _TENSOR.fullmatch(key)
        part = match["part"] if match else ""
        if match is None or part not in sizes or int(match["layer"]) >= config.layers:
            raise InvalidAdapter(
                name,
                f"tensor {key!r} belongs to no matrix that an adapter can change here.",
                hint=f"Train it with target_modules among {', '.join(sizes)}.",
            )
        place = int(match["layer"]), part
        modules[place] = match["module"]
        found.setdefault(place, {})[match["side"]] = tensor
    if not found:
        raise InvalidAdapter(name, f"{WEIGHTS} holds no LoRA tensors.")
    scaled: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    for place, sides in found.items():
        a, b = _checked(name, modules[place], sides, *sizes[place[1]], max_rank)
        scaled[place] = a, b * settings.scale(modules[place], a.shape[0])
    return Adapter(
        name,
        max(a.shape[0] for a, _ in scaled.values()),
        tuple(_fused(config.projections, layer, scaled) for layer in range(config.layers)),
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    name: str
    values: Mapping[str, object]

    def check(self) -> None:
        kind = self.values.get("peft_type")
        if kind != "LORA":
            raise InvalidAdapter(self.name, f"peft_type is {kind!r}; only LORA is applied.")
        for key in _REFUSED:
            if self.values.get(key):
                raise self._refused(key)
        if self.values.get("bias", "none") != "none":
            raise self._refused("bias")
        if self.values.get("init_lora_weights") not in _INITS:
            raise self._refused("init_lora_weights")

    def scale(self, module: str, rank: int) -> float:
        """By what B A x is multiplied for a matrix whose A has `rank` rows."""
        alpha = self._pattern("alpha_pattern", module, self._number("lora_alpha"))
        stated = self._pattern("rank_pattern", module, self._number("r"))
        if stated != rank:
            raise InvalidAdapter(self.name, f"{module} has rank {rank}; {CONFIG} says {stated:g}.")
        return alpha / (math.sqrt(rank) if self.values.get("use_rslora") else rank)

    def _number(self, key: str) -> float:
        return self._positive(key, self.values.get(key, 8))

    def _pattern(self, key: str, module: str, default: float) -> float:
        """The entry for a module: patterns are ends of its name here, never regular expressions,
        for these files come from outside."""
        patterns = self.values.get(key) or {}
        if not isinstance(patterns, dict):
            raise InvalidAdapter(self.name, f"{key} in {CONFIG} must be an object.")
        for pattern, value in patterns.items():
            if not _PATTERN.fullmatch(pattern):
                raise InvalidAdapter(
                    self.name,
                    f"{key} in {CONFIG} has the pattern {pattern!r}.",
                    hint="Only names of modules are understood, not regular expressions.",
                )
            whole = module == pattern.removeprefix("^")
            if whole or (not pattern.startswith("^") and module.endswith(f".{pattern}")):
                return self._positive(f"{key}[{pattern!r}]", value)
        return default

    def _positive(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InvalidAdapter(self.name, f"{key} in {CONFIG} must be positive, not {value!r}.")
        return float(value)

    def _refused(self, key: str) -> InvalidAdapter:
        return InvalidAdapter(
            self.name,
            f"{key} is {self.values[key]!r} in {CONFIG}, which is not applied here.",
            hint="Merge such an adapter into its model, and deploy that.",
        )


def _modules(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Rows and columns of every module of a layer that may have an adapter."""
    shapes = config.linear_shapes
    parts = {part: (rows, columns) for part, (_, rows, columns) in config.projections.items()}
    return parts | {f"{target}_proj": shapes[target] for target in _WHOLE}


def _tensors(name: str, directory: Path) -> dict[str, Tensor]:
    path = directory / WEIGHTS
    if not path.is_file():
        raise InvalidAdapter(
            name, f"{WEIGHTS} is missing.", hint="Only safetensors are read; convert others first."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidAdapter(name, f"{WEIGHTS} cannot be read: {error}") from error


def _checked(
    name: str, module: str, sides: Mapping[str, Tensor], rows: int, columns: int, max_rank: int
) -> tuple[Tensor, Tensor]:
    """A and B of a module in float32, of the shapes that the model has room for."""
    if set(sides) != {"A", "B"}:
        raise InvalidAdapter(name, f"{module} has only one of lora_A and lora_B.")
    a, b = sides["A"], sides["B"]
    if not (a.is_floating_point() and b.is_floating_point()):
        raise InvalidAdapter(name, f"{module} has tensors that are not floating point.")
    rank = a.shape[0] if a.dim() == 2 else 0
    if tuple(a.shape) != (rank, columns) or tuple(b.shape) != (rows, rank):
        raise InvalidAdapter(
            name,
            f"{module} has shapes {tuple(a.shape)} and {tuple(b.shape)}; the model implies "
            f"[rank, {columns}] and [{rows}, rank].",
            hint="It was made for another model.",
        )
    if not 1 <= rank <= max_rank:
        raise InvalidAdapter(
            name,
            f"{module} has rank {rank}; there is room for {max_rank}.",
            hint="Deploy with a larger OPTION_MAX_LORA_RANK.",
        )
    return a.float(), b.float()


def _fused(
    sizes: Mapping[str, tuple[str, int, int]],
    layer: int,
    scaled: Mapping[tuple[int, str], tuple[Tensor, Tensor]],
) -> dict[str, tuple[Tensor, Tensor]]:
    fused: dict[str, tuple[Tensor, Tensor]] = {}
    for target in dict.fromkeys(target for target, _, _ in sizes.values()):
        parts = [(part, rows) for part, (t, rows, _) in sizes.items() if t == target]
        own = [scaled.get((layer, part)) for part, _ in parts]
        some = [pair for pair in own if pair is not None]
        b = torch.zeros(sum(rows for _, rows in parts), sum(a.shape[0] for a, _ in some))
        row = column = 0
        for pair, (_, rows) in zip(own, parts, strict=True):
            if pair is not None:
                rank = pair[0].shape[0]
                b[row : row + rows, column : column + rank] = pair[1]
                column += rank
            row += rows
        if some:
            fused[target] = torch.cat([a for a, _ in some]), b
        whole = scaled.get((layer, f"{target}_proj"))
        if whole is not None and target in _WHOLE:
            fused[target] = whole
    return fused
