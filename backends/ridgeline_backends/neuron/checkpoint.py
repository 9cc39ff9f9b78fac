"""A decoder's weights as one safetensors file per core: written lazily, read back, cut anew.

One tensor is in memory at a time, with the layer that it comes from; never the whole model. What is
cut from a checkpoint and what is cut from another degree's files are equal to the bit.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from safetensors import safe_open
from torch import Tensor

from ridgeline_backends.errors import InvalidModel
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import DecoderWeights, LayerWeights, read_decoder
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.neuron.builders.architecture import dense
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig, neuron_config
from ridgeline_backends.neuron.execute.memory import names_of
from ridgeline_backends.neuron.execute.rounding import torch_dtype
from ridgeline_backends.neuron.partition import HeadPlan, plan_heads
from ridgeline_backends.neuron.program import BufferKind, ElementType, Form
from ridgeline_backends.neuron.sharding import DecoderShards

SETTINGS = "neuron_config.json"

_NAMES = {
    ElementType.FP32: "F32",
    ElementType.BF16: "BF16",
    ElementType.FP16: "F16",
    ElementType.INT8: "I8",
    ElementType.FP8_E4M3: "F8_E4M3",
    ElementType.FP8_E5M2: "F8_E5M2",
}

Progress = Callable[[int, int], None]
"""Tensors that are written, and how many there are to be."""


def shard_checkpoint(
    model_dir: Path,
    out: Path,
    model: DecoderConfig,
    config: NeuronConfig,
    progress: Progress = lambda done, total: None,
) -> None:
    """Cut a Hugging Face checkpoint into `tp_degree` files, with the settings beside them.

    Raises `MissingTensor`, `MismatchedTensor` and `InvalidModel`.
    """
    with torch.inference_mode(), Weights(model_dir) as weights:
        _write(out, model, config, read_decoder(model, weights), progress)


def reshard_checkpoint(
    shards: Path,
    out: Path,
    model: DecoderConfig,
    degree: int,
    progress: Progress = lambda done, total: None,
) -> None:
    """Cut files of one degree for another. Raises `InvalidModel` for files that are not all there
    or that hold quantised weights, which were scaled for their own degree's rounding."""
    former = neuron_config(read_json(shards / SETTINGS))
    if former.quantized:
        raise InvalidModel(
            "Quantised weights are not cut anew.", hint="Shard the original checkpoint again."
        )
    settings = {**read_json(shards / SETTINGS), "tp_degree": degree}
    with torch.inference_mode(), ExitStack() as stack:
        joined = _Joined(model, former, _open(shards, former.tp_degree, stack))
        _write(out, model, neuron_config(settings), joined.weights(), progress)


def shard_file(core: int) -> str:
    return f"tp{core}_sharded_checkpoint.safetensors"


def _write(
    out: Path,
    model: DecoderConfig,
    config: NeuronConfig,
    weights: DecoderWeights,
    progress: Progress,
) -> None:
    forms = dict(_forms(model, config))
    out.mkdir(parents=True, exist_ok=True)
    cut = DecoderShards(model, config, NXDI, weights)
    header = _header(forms)
    with ExitStack() as stack:
        files: list[BinaryIO] = [
            stack.enter_context((out / shard_file(core)).open("wb"))
            for core in range(config.tp_degree)
        ]
        for file in files:
            file.write(header)
        for place, (name, form) in enumerate(forms.items(), start=1):
            for file, part in zip(files, cut(name), strict=True):
                kept = part.to(torch_dtype(form.dtype)).contiguous()
                assert tuple(kept.shape) == form.shape, f"{name}: {kept.shape}, not {form.shape}"
                file.write(kept.view(torch.uint8).numpy().tobytes())
            progress(place, len(forms))
    # Last: files without it are those of a run that did not end.
    (out / SETTINGS).write_text(json.dumps(asdict(config), indent=1))


def _forms(model: DecoderConfig, config: NeuronConfig) -> Iterator[tuple[str, Form]]:
    """Every weight of a core, layer by layer."""
    program = decoder_program(
        dense(model),
        config,
        phase=Phase.TOKEN_GENERATION,
        bucket=config.seq_len,
        rules=NXDI,
    )
    found = {
        name: buffer.form
        for buffer, section in program.buffers(BufferKind.WEIGHT)
        for name in names_of(buffer, section)
        if not name.startswith("rope.")  # computed, not read
    }
    layered = sorted(
        (name for name in found if name.startswith("layers.")),
        key=lambda name: int(name.split(".")[1]),
    )
    for name in [*(set(found) - set(layered)), *layered]:
        yield name, found[name]


def _header(forms: dict[str, Form]) -> bytes:
    """As safetensors has it: the length, then JSON, then the numbers in this order."""
    entries: dict[str, object] = {}
    begin = 0
    for name, form in forms.items():
        end = begin + form.bytes
        entries[name] = {
            "dtype": _NAMES[form.dtype],
            "shape": list(form.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _open(shards: Path, degree: int, stack: ExitStack) -> list[safe_open]:
    files = []
    for core in range(degree):
        path = shards / shard_file(core)
        if not path.is_file():
            raise InvalidModel(
                f"{path.name} is missing: there must be {degree} files beside {SETTINGS}."
            )
        files.append(stack.enter_context(safe_open(path, framework="pt")))
    return files


class _Joined:
    """The cores' parts put together again: what a checkpoint of whole tensors would hold."""

    def __init__(
        self, model: DecoderConfig, config: NeuronConfig, files: Sequence[safe_open]
    ) -> None:
        self._model = model
        self._config = config
        self._files = files
        self._names = frozenset(files[0].keys())  # type: ignore[no-untyped-call]
        self._heads: HeadPlan = plan_heads(model.heads, model.kv_heads, config.tp_degree, NXDI.kv)

    def weights(self) -> DecoderWeights:
        model = self._model
        axis = 0 if self._config.vocab_parallel else 1
        table = self._parts("embedding")
        cut = self._config.vocab_parallel or model.hidden % self._config.tp_degree == 0
        embedding = torch.cat(table, axis)[: model.vocab_size] if cut else table[0]
        head = torch.cat(self._parts("head"))[: model.vocab_size]
        return DecoderWeights(embedding, self._parts("norm")[0], head, self._layer, model.layers)

    def _layer(self, index: int) -> LayerWeights:
        model, prefix = self._model, f"layers.{index}."
        keys = self._heads.keys
        picks = {"q": self._heads.queries, "k": keys, "v": keys}
        counts = {"q": model.heads, "k": model.kv_heads, "v": model.kv_heads}

        def fused(suffix: str) -> Tensor | None:
            """q, k and v below each other."""
            by_core = self._qkv(f"{prefix}attention.", suffix)
            if not by_core:
                return None
            return torch.cat(
                [
                    self._heads_of([one[part] for one in by_core], picks[part], counts[part], 0)
                    for part in "qkv"
                ]
            )

        qkv = fused("")
        assert qkv is not None, "every layer has queries"
        gates, ups = zip(
            *(part.chunk(2) for part in self._parts(f"{prefix}mlp.gate_up")), strict=True
        )
        inner = model.intermediate
        o = self._heads_of(self._parts(f"{prefix}attention.o"), self._heads.queries, model.heads, 1)
        return LayerWeights(
            attention_norm=self._parts(f"{prefix}attention_norm")[0],
            qkv=qkv,
            qkv_bias=fused("_bias"),
            q_norm=self._vector(f"{prefix}attention.q_norm"),
            k_norm=self._vector(f"{prefix}attention.k_norm"),
            o=o,
            o_bias=self._vector(f"{prefix}attention.out_bias"),
            post_attention_norm=self._vector(f"{prefix}post_attention_norm"),
            mlp_norm=self._parts(f"{prefix}mlp_norm")[0],
            gate_up=torch.cat([torch.cat(gates)[:inner], torch.cat(ups)[:inner]]),
            down=torch.cat(self._parts(f"{prefix}mlp.down"), 1)[:, :inner],
            post_mlp_norm=self._vector(f"{prefix}post_mlp_norm"),
        )

    def _qkv(self, prefix: str, suffix: str) -> list[dict[str, Tensor]]:
        """Each core's queries, keys and values; nothing where there are none of that suffix."""
        dim = self._model.head_dim
        sizes = [
            self._heads.queries_per_core * dim,
            self._heads.keys_per_core * dim,
            self._heads.keys_per_core * dim,
        ]
        if self._config.fused_qkv:
            return [
                dict(zip("qkv", torch.split(one, sizes), strict=True))
                for one in self._parts(f"{prefix}qkv{suffix}")
            ]
        apart = {part: self._parts(f"{prefix}{part}{suffix}") for part in "qkv"}
        return [
            {part: tensors[core] for part, tensors in apart.items()}
            for core in range(len(apart["q"]))
        ]

    def _heads_of(
        self,
        parts: Sequence[Tensor],
        picks: Sequence[Sequence[int | None]],
        count: int,
        axis: int,
    ) -> Tensor:
        """Heads 0 to `count` in order, each from the first core that has it."""
        dim = self._model.head_dim
        found: dict[int, Tensor] = {}
        for part, own in zip(parts, picks, strict=True):
            for head, tensor in zip(own, torch.split(part, dim, axis), strict=True):
                if head is not None:
                    found.setdefault(head, tensor)
        return torch.cat([found[head] for head in range(count)], axis)

    def _vector(self, name: str) -> Tensor | None:
        parts = self._parts(name)
        return parts[0] if parts else None

    def _parts(self, name: str) -> list[Tensor]:
        """A tensor of every core; none where the model has no such."""
        if name not in self._names:
            return []
        return [file.get_tensor(name) for file in self._files]  # type: ignore[no-untyped-call]
