"""Rows of training throughput: sequences a second over all nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.builders.encoder import EncoderShape
from ridgeline_backends.neuron.builders.training import (
    Recomputed,
    TrainingPlan,
    build_microbatch,
    build_update,
)
from ridgeline_backends.neuron.calibration.places import machine_of
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.program import ElementType
from ridgeline_backends.neuron.timing.work import Work

_DEGREE = re.compile(r"\b(TP|PP)\s*=\s*(\d+)")
_OLD_TENSOR = re.compile(r"(\d+)xNC\(TP\)")
_BYTES_PER_PARAMETER = 6
"""Weights in bf16 and gradients in fp32: what a core must hold even if all else is cut."""

_NAMES = re.compile(r"\s*(Ph[12])?\s*(pre-training|fine-tuning|training)\s*$", re.IGNORECASE)


_NEMO_FROM = 13
"""Decoders were trained by Megatron-LM until NeMo Megatron and NxD came with this SDK. The two cut
sequences over the tensor-parallel cores; Megatron-LM's scripts did not, and kept all activations
(aws-neuron-reference-for-megatron-lm, examples/pretrain_gpt3_6.7B_32layers_bf16.sh)."""

_SYNCHRONOUS = 1 / (1 - 0.12)
"""What a step takes longer where the host waits for each graph: asynchronous execution saves
roughly 12% of training (release notes of the runtime, 2.15.11). NeMo's and NxD's scripts use it."""

_FLASH_FROM = 19
"""The kernel for attention came to both (release notes: NxD 0.8.0, neuronx-nemo-megatron 0.6.0)."""

_SELECTIVE = ("GPT3-23B", "GPT3-175B")
"""Models whose NeMo scripts make attention alone again, not all activations
(ACT_CHKPNT_GRANULARITY in gpt_23b.sh and gpt_175b.sh; full in the others and in test_llama.sh)."""


@dataclass(frozen=True)
class Degrees:
    tensor: int
    pipeline: int


def training_quantities(row: Row) -> list[Quantity]:
    """Fields of "training"."""
    nodes = row.integer("nodes", 1)
    machine = machine_of(row, nodes=nodes)
    shape, length, scored, own_layers = _model(row)
    degrees = _degrees(row, shape)
    data = max(1, machine.cores // (degrees.tensor * degrees.pipeline))
    new = shape.causal and (row.sdk_minor or 99) >= _NEMO_FROM
    # NxD's scripts alone keep the optimizer's state in fp32, and cut it over the cores.
    zero = "FP32Optimizer" in row.text("train_dtype") or "ZeRO" in row.text("topology")
    plan = TrainingPlan(
        shape=shape,
        tensor=degrees.tensor,
        data=data,
        pipeline=degrees.pipeline,
        microbatch=row.integer("microbatch", 1),
        global_batch=row.integer("global_batch"),
        length=length,
        scored=scored,
        zero=zero,
        recompute=_recomputed(row, zero) if new else "none",
        dropout=not shape.causal,
        lamb=row.text("optimizer").lower() == "lamb",
        own_layers=own_layers,
        sequence_parallel=new,
        whole_gradients=not row.text("train_dtype").endswith("SR"),
    )
    # Filling and draining the pipeline takes all but one of its stages' microbatches again.
    turns = plan.microbatches + plan.pipeline - 1
    step = Work.total(
        (
            Work.of(build_microbatch(plan), machine) * turns,
            Work.of(build_update(plan), machine),
        )
    ).compiled_by(row.sdk_minor)
    if shape.causal and not new:
        step = step * _SYNCHRONOUS
    done = plan.microbatches * plan.microbatch * plan.data
    return [Quantity("seq_per_s", "training", step, done, rate=True)]


def _recomputed(row: Row, zero: bool) -> Recomputed:
    """NxD's scripts make attention alone again (selective_checkpoint_enabled)."""
    return "attention" if zero or row.model.startswith(_SELECTIVE) else "all"


def _degrees(row: Row, shape: EncoderShape) -> Degrees:
    """Printed degrees of tensors and stages. That of data follows from them and the cores, as the
    tables' page says of itself; two rows print another, which no run can have had."""
    printed = {name: int(value) for name, value in _DEGREE.findall(row.text("topology"))}
    old = _OLD_TENSOR.search(row.text("topology"))
    tensor = printed.get("TP", int(old.group(1)) if old else 1)
    if "PP" in printed:
        return Degrees(tensor, printed["PP"])
    pipeline = 1
    limit = machine_of(row).core_memory_bytes
    while _core_bytes(shape, tensor, pipeline) > limit and pipeline < 64:
        # A model that cannot lie on so few cores was cut into stages, whatever the table says, and
        # the largest over a whole instance too.
        pipeline *= 2
    return Degrees(32, pipeline) if pipeline > 4 else Degrees(tensor, pipeline)


def _core_bytes(shape: EncoderShape, tensor: int, pipeline: int) -> float:
    each = (3 if shape.gated else 2) * shape.hidden * shape.intermediate
    each += shape.width * shape.hidden * (2 * shape.heads + 2 * shape.key_heads)
    return shape.layers * each * _BYTES_PER_PARAMETER / tensor / pipeline


def _model(row: Row) -> tuple[EncoderShape, int, int, int]:
    """Its shape, the length of its sequences, how many of their places are scored, and how many
    layers have weights of their own (0: all)."""
    name = _NAMES.sub("", row.model).strip()
    config, kind = row.config, "given"
    if config is None:
        config, kind = _catalogued(name, row)
    if kind == "vision":
        return _image_model(config)
    length = row.integer("seq_len", 128 if kind == "encoders" else 2048)
    if "Ph2" in row.model:
        length = row.integer("seq_len", 512)
    shape = _shape(config, row)
    # BERT's library computes the logits of all places, wanted or not.
    return shape, length, length, 0


def _catalogued(name: str, row: Row) -> tuple[Mapping[str, object], str]:
    for kind in ("encoders", "vision", "decoders"):
        try:
            return find(name, kind).config, kind
        except NotFound:
            continue
    raise UnpredictableRow(f"{row.id}: the sizes of {name!r} are not known.")


def _image_model(config: Mapping[str, object]) -> tuple[EncoderShape, int, int, int]:
    if config.get("builder") == "perceiver":
        shape = EncoderShape(
            hidden=_integer(config, "hidden_size"),
            layers=_integer(config, "blocks") * _integer(config, "layers_per_block"),
            heads=_integer(config, "num_attention_heads"),
            intermediate=_integer(config, "hidden_size"),
            vocab=1000,
        )
        return shape, _integer(config, "latents"), 1, _integer(config, "layers_per_block")
    if config.get("builder") not in ("vit", "clip"):
        raise UnpredictableRow(f"Training of {config.get('builder')!r} is not modelled.")
    side = _integer(config, "image") // _integer(config, "patch")
    shape = EncoderShape(
        hidden=_integer(config, "hidden_size"),
        layers=_integer(config, "num_hidden_layers"),
        heads=_integer(config, "num_attention_heads"),
        intermediate=_integer(config, "intermediate_size"),
        vocab=1000,
    )
    return shape, side * side + 1, 1, 0


def _shape(config: Mapping[str, object], row: Row) -> EncoderShape:
    def size(*names: str, default: int | None = None) -> int:
        for name in names:
            value = config.get(name)
            if type(value) is int and value > 0:
                return value
        if default is None:
            wanted = " or ".join(names)
            raise UnpredictableRow(f"{row.id}: its config.json has no {wanted} above 0.")
        return default

    hidden = size("hidden_size", "n_embd", "d_model")
    whole = row.text("train_dtype") == "FP32"
    family = str(config.get("model_type", ""))
    causal = family in ("gpt2", "gpt_neox", "llama", "mistral", "qwen3", "mixtral")
    return EncoderShape(
        hidden=hidden,
        layers=size("num_hidden_layers", "n_layer", "num_layers"),
        heads=size("num_attention_heads", "n_head", "num_heads"),
        intermediate=size("intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * hidden),
        vocab=size("vocab_size"),
        kv_heads=size("num_key_value_heads", default=0),
        head_dim=size("head_dim", default=0),
        causal=causal,
        kernel="flash" if causal and (row.sdk_minor or 99) >= _FLASH_FROM else "plain",
        dtype=ElementType.FP32 if whole else ElementType.BF16,
        # neuronx-cc casts the inputs of fp32 products to bf16 unless told not to.
        products=ElementType.BF16 if whole else None,
        gated=family in ("llama", "mistral", "qwen3", "mixtral"),
    )


def _integer(config: Mapping[str, object], name: str) -> int:
    value = config.get(name)
    if type(value) is not int:
        raise UnpredictableRow(f"The model's sizes have no whole number {name!r}.")
    return value
