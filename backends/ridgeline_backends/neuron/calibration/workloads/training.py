"""Rows of training throughput: sequences a second over all nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.builders.encoder import EncoderShape
from ridgeline_backends.neuron.builders.listing import Listing, weight
from ridgeline_backends.neuron.builders.training import (
    Recomputed,
    TrainingPlan,
    build_microbatch,
    build_update,
)
from ridgeline_backends.neuron.calibration.places import machine_of
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads.sizes import Sizes, sizes_of
from ridgeline_backends.neuron.calibration.workloads.topologies import (
    degrees_of,
    is_optimizer_cut,
)
from ridgeline_backends.neuron.catalogue import Entry, find, known_language_model
from ridgeline_backends.neuron.operations import Binary
from ridgeline_backends.neuron.program import ElementType, Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import Work

_BYTES_PER_PARAMETER = 6
"""Weights in bf16 and gradients in fp32: what a core must hold even if all else is cut."""

_PHASE = re.compile(r"\s*\(?\bph(?:ase)?[-_ ]?([12])\b\)?", re.IGNORECASE)
_NAMES = re.compile(r"\s*(pre[-_ ]?training|fine[-_ ]?tuning|training)\s*$", re.IGNORECASE)

_APART = re.compile(r"[\W_]+")

_NEMO_FROM = 13
"""Decoders were trained by Megatron-LM until NeMo Megatron and NxD came with this SDK. The two cut
sequences over the tensor-parallel cores; Megatron-LM's scripts did not, and kept all activations
(aws-neuron-reference-for-megatron-lm, examples/pretrain_gpt3_6.7B_32layers_bf16.sh)."""

_SYNCHRONOUS = 1 / (1 - 0.12)
"""What a step takes longer where the host waits for each graph: asynchronous execution saves
roughly 12% of training (release notes of the runtime, 2.15.11). NeMo's and NxD's scripts use it."""

_FLASH_FROM = 19
"""The kernel for attention came to both (release notes: NxD 0.8.0, neuronx-nemo-megatron 0.6.0)."""

_FUSED_FROM = 15
"""NxD's scripts for Llama 2 compile with --distribution-strategy=llm-training, which is not to be
given beside that kernel (release notes: NxD Training 1.2.0): the compiler fuses attention itself.
No release note says since when; the rate doubled from 2.13 (TR0082) to 2.15 (TR0122), and the
kernel added nothing to it (TR0144, TR0169)."""

_SELECTIVE = ("gpt3-23b", "gpt3-175b")
"""Models whose NeMo scripts make attention alone again, not all activations
(ACT_CHKPNT_GRANULARITY in gpt_23b.sh and gpt_175b.sh; full in the others and in test_llama.sh)."""


@dataclass(frozen=True)
class Degrees:
    tensor: int
    pipeline: int


@dataclass(frozen=True)
class Trained:
    """`shape`: what a token goes through, `kept`: with the weights of all experts, where some are
    chosen. `scored`: places of a sequence whose logits are wanted. `own_layers`: how many have
    weights of their own; 0: all."""

    shape: EncoderShape
    kept: EncoderShape
    length: int
    scored: int
    own_layers: int = 0

    @property
    def mixture(self) -> bool:
        return self.kept.intermediate > self.shape.intermediate

    def over(self, cores: int, sizes: Sizes | None) -> Trained:
        """With heads as they are cut over so many cores."""
        if sizes is None:
            return self
        heads, keys = sizes.heads_over(cores)
        if (heads, keys) == (sizes.heads, sizes.kv_heads):
            return self
        shape, kept = (replace(one, heads=heads, kv_heads=keys) for one in (self.shape, self.kept))
        return replace(self, shape=shape, kept=kept)


def training_quantities(row: Row) -> list[Quantity]:
    """Fields of "training"."""
    machine = _machine(row)
    model, sizes = _model(row)
    degrees = _degrees(row, model.kept, machine)
    model = model.over(degrees.tensor, sizes)
    shape = model.shape
    data = machine.cores // (degrees.tensor * degrees.pipeline)
    new = shape.causal and (row.sdk_minor or 99) >= _NEMO_FROM
    zero = _is_nxd(row)
    plan = TrainingPlan(
        shape=shape,
        tensor=degrees.tensor,
        data=data,
        pipeline=degrees.pipeline,
        microbatch=row.integer("microbatch", 1),
        global_batch=row.integer("global_batch"),
        length=model.length,
        scored=model.scored,
        zero=zero,
        recompute=_recomputed(row, zero) if new else "none",
        dropout=not shape.causal,
        lamb=row.stated("optimizer") == "lamb",
        own_layers=model.own_layers,
        sequence_parallel=new,
        whole_gradients=not _types(row).endswith("sr"),
    )
    # Of experts that are chosen all have gradients and states.
    kept = replace(plan, shape=model.kept)
    # Filling and draining the pipeline takes all but one of its stages' microbatches again.
    turns = plan.microbatches + plan.pipeline - 1
    step = Work.total(
        (
            Work.of(build_microbatch(plan), machine) * turns,
            *((Work.of(_unchosen(plan, kept), machine) * turns,) if model.mixture else ()),
            Work.of(build_update(kept), machine),
        )
    ).compiled_by(row.sdk_minor)
    if shape.causal and not new:
        step = step * _SYNCHRONOUS
    done = plan.microbatches * plan.microbatch * plan.data
    domain = "training:experts" if model.mixture else "training"
    return [Quantity("seq_per_s", domain, step, done, rate=True)]


def _machine(row: Row) -> Machine:
    machine = machine_of(row, nodes=row.integer("nodes", 1))
    if machine.chip.name.startswith("inferentia"):
        raise UnpredictableRow(
            f"{row.id}: {machine.instance.name} does not train: Inferentia is for inference.",
            hint="Trainium trains: trn1.32xlarge, trn2.48xlarge.",
        )
    return machine


def _is_nxd(row: Row) -> bool:
    """NxD's scripts alone keep the optimizer's state in fp32, and cut it over the cores."""
    return "fp32optimizer" in _types(row) or is_optimizer_cut(row)


def _types(row: Row) -> str:
    """Of numbers, in one spelling: "autocastbf16sr"."""
    return _APART.sub("", row.text("train_dtype").lower())


def _recomputed(row: Row, zero: bool) -> Recomputed:
    """NxD's scripts make attention alone again (selective_checkpoint_enabled)."""
    known = known_language_model(_name(row))
    selective = known is not None and known.name in _SELECTIVE
    return "attention" if zero or selective else "all"


def _unchosen(plan: TrainingPlan, kept: TrainingPlan) -> Program:
    """What a microbatch does with the weights of experts beyond those of one token, as its tokens
    choose all of them: they are read on the way there and back, and their gradients written."""
    out = Listing("experts", 1)
    more = max(1, kept.parameters - plan.parameters)
    numbers = [weight(f"experts{place}", more, dtype=plan.shape.dtype) for place in range(2)]
    out.into(Binary("add"), *numbers, target=numbers[0])
    return Program("training", (out.section(),), cores=plan.tensor)


def _degrees(row: Row, shape: EncoderShape, machine: Machine) -> Degrees:
    """Printed degrees of tensors and stages. That of data follows from them and the cores, as the
    tables' page says of itself; two rows print another, which no run can have had. Raises
    `UnpredictableRow` for more cores than there are, and more stages than layers."""
    printed = degrees_of(row)
    tensor = printed.get("tp", 1)
    found = Degrees(tensor, printed["pp"]) if "pp" in printed else _staged(shape, tensor, machine)
    taken = found.tensor * found.pipeline
    if taken > machine.cores:
        why = "" if "pp" in printed else " for enough memory"
        raise UnpredictableRow(
            f"{row.id}: TP={found.tensor} x PP={found.pipeline} takes {taken} cores{why}; "
            f"{machine.nodes} x {machine.instance.name} has {machine.cores}."
        )
    if found.pipeline > shape.layers:
        raise UnpredictableRow(
            f"{row.id}: {shape.layers} layers cannot be cut into {found.pipeline} stages."
        )
    if shape.hidden % found.tensor:
        raise UnpredictableRow(
            f"{row.id}: TP={found.tensor} does not divide the {shape.hidden} columns of the "
            "embedding, as libraries have it."
        )
    return found


def _staged(shape: EncoderShape, tensor: int, machine: Machine) -> Degrees:
    """A model that cannot lie on so few cores was cut into stages, whatever the table says, and
    the largest over a whole instance too."""
    pipeline = 1
    limit = machine.core_memory_bytes
    while _core_bytes(shape, tensor, pipeline) > limit and pipeline < 64:
        pipeline *= 2
    return Degrees(32, pipeline) if pipeline > 4 else Degrees(tensor, pipeline)


def _core_bytes(shape: EncoderShape, tensor: int, pipeline: int) -> float:
    each = (3 if shape.gated else 2) * shape.hidden * shape.intermediate
    each += shape.width * shape.hidden * (2 * shape.heads + 2 * shape.key_heads)
    return shape.layers * each * _BYTES_PER_PARAMETER / tensor / pipeline


def _model(row: Row) -> tuple[Trained, Sizes | None]:
    """With the sizes that its config.json has; images have others."""
    config, kind = row.config, "given"
    if config is None:
        entry, kind = _catalogued(row)
        config = entry.config
    if kind == "vision":
        return _image_model(config), None
    phase = _PHASE.search(row.model)
    if phase is not None:
        length = row.integer("seq_len", 512 if phase.group(1) == "2" else 128)
    else:
        length = row.integer("seq_len", 128 if kind == "encoders" else 2048)
    sizes = sizes_of(config, row)
    if not sizes.vocab:
        raise UnpredictableRow(f"{row.id}: its config.json has no vocab_size above 0.")
    shape = _shape(sizes, row)
    # BERT's library computes the logits of all places, wanted or not.
    return Trained(shape, replace(shape, intermediate=sizes.kept), length, length), sizes


def are_sizes_known(row: Row) -> bool:
    """Whether they are the model's own, not those of one that is as large."""
    return row.config is not None or _catalogued(row)[0].exact


def _name(row: Row) -> str:
    """The model's, without what was done with it."""
    return _NAMES.sub("", _PHASE.sub("", row.model)).strip()


def _catalogued(row: Row) -> tuple[Entry, str]:
    """What the catalogue knows the model as, and its kind."""
    name = _name(row)
    for kind in ("encoders", "vision", "decoders"):
        try:
            return find(name, kind), kind
        except NotFound:
            continue
    raise UnpredictableRow(f"{row.id}: the sizes of {name!r} are not known.")


def _image_model(config: Mapping[str, object]) -> Trained:
    if config.get("builder") == "perceiver":
        shape = EncoderShape(
            hidden=_integer(config, "hidden_size"),
            layers=_integer(config, "blocks") * _integer(config, "layers_per_block"),
            heads=_integer(config, "num_attention_heads"),
            intermediate=_integer(config, "hidden_size"),
            vocab=1000,
        )
        return Trained(
            shape, shape, _integer(config, "latents"), 1, _integer(config, "layers_per_block")
        )
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
    return Trained(shape, shape, side * side + 1, 1)


def _shape(sizes: Sizes, row: Row) -> EncoderShape:
    whole = row.stated("train_dtype") in ("fp32", "float32")
    return EncoderShape(
        hidden=sizes.hidden,
        layers=sizes.layers,
        heads=sizes.heads,
        intermediate=sizes.intermediate,
        vocab=sizes.vocab,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        causal=sizes.decoder,
        kernel="flash" if sizes.decoder and _fuses_attention(row) else "plain",
        dtype=ElementType.FP32 if whole else ElementType.BF16,
        # neuronx-cc casts the inputs of fp32 products to bf16 unless told not to.
        products=ElementType.BF16 if whole else None,
        gated=sizes.gated,
    )


def _fuses_attention(row: Row) -> bool:
    return (row.sdk_minor or 99) >= (_FUSED_FROM if _is_nxd(row) else _FLASH_FROM)


def _integer(config: Mapping[str, object], name: str) -> int:
    value = config.get(name)
    if type(value) is not int:
        raise UnpredictableRow(f"The model's sizes have no whole number {name!r}.")
    return value
