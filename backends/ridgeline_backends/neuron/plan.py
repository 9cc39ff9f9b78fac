"""Whether a decoder fits a group of simulated cores, and how it is compiled for them.

Memory is that of the programs themselves, by `liveness`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ridgeline_backends.base import Dtype, LoadSpec, MemoryNeed, Plan
from ridgeline_backends.cpu.memory import machine_memory
from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.neuron.builders.architecture import dense
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig, neuron_config
from ridgeline_backends.neuron.instruction_count import too_many
from ridgeline_backends.neuron.liveness import CoreNeed, core_need, kept_bytes
from ridgeline_backends.neuron.placement import Placement, allowed_degrees, place
from ridgeline_backends.neuron.program import BufferKind, Program

_DEFAULT_KV_BYTES = 1 << 30
"""KV memory of a copy where nobody asked for an amount or a number of sequences: it is the host's
that fills up."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronPlan(Plan):
    """A plan with what it is compiled for."""

    neuron: NeuronConfig
    placement: Placement
    need: CoreNeed


def target(
    context_length: int, spec: LoadSpec, settings: Mapping[str, object], instance: str | None
) -> tuple[Dtype, Placement, int, list[str]]:
    """The type of numbers, the cores, the longest sequence, and what of these is refused. Raises as
    `decoder_plan`."""
    dtype = _dtype_of(spec)
    given = neuron_config({"torch_dtype": dtype.value, "seq_len": 1, **settings})
    degree = given.tp_degree if "tp_degree" in settings else spec.tensor_parallel
    lnc = spec.logical_nc_config if given.logical_nc_config is None else given.logical_nc_config
    placement = place(instance, degree, lnc, copies=spec.data_parallel)
    length = _asked_length(context_length, spec, settings)
    refusals = list(placement.refusals)
    if length > context_length:
        refusals.append(
            f"max_model_len {length} is above the model's context length {context_length}."
        )
    return dtype, placement, length, refusals


def decoder_plan(
    config: DecoderConfig,
    architecture: str,
    spec: LoadSpec,
    *,
    settings: Mapping[str, object],
    instance: str | None,
    backend: str,
) -> NeuronPlan:
    """`settings`: fields of `NeuronConfig`, which win over `spec`. What does not fit is a refusal.

    Raises `InvalidNeuronConfig`, `UnsupportedModel` for a type of numbers that the backend does not
    run, and `InvalidInput` for an unknown instance type.
    """
    if spec.quantize:
        settings = {"quantized": True, **settings}
    dtype, placement, length, refusals = target(config.context_length, spec, settings, instance)
    neuron = neuron_config(
        {
            "torch_dtype": dtype.value,
            "is_continuous_batching": True,
            "on_device_sampling_config": {},
            "fused_qkv": True,
            **settings,
            "seq_len": length,
            "tp_degree": placement.cores,
        }
    )
    slot = _slot_bytes(config, neuron)
    slots = _slots(spec, settings, slot)
    if slots < 1:
        refusals.append(
            f"KV memory of {spec.kv_cache_bytes} bytes holds less than one sequence of {length} "
            f"tokens, which takes {slot}."
        )
    neuron = replace(neuron, batch_size=max(slots, 1))
    programs = compiled_programs(config, neuron)
    need = core_need(programs, placement.instance.chip)
    refusals.extend(program_refusals(programs, need, placement))
    memory = MemoryNeed(
        weights=need.weights * placement.all_cores,
        kv=need.kv * placement.all_cores,
        scratch=(need.total - need.weights - need.kv) * placement.all_cores,
    )
    refusals.extend(host_refusals(_kept_weights(config, neuron, need), need.kv, placement))
    return NeuronPlan(
        backend=backend,
        architecture=architecture,
        dtype=dtype,
        spec=replace(spec, max_num_seqs=neuron.batch_size),
        max_model_len=length,
        kv_blocks=max(slots, 0),
        memory=memory,
        available_bytes=placement.core_memory_bytes * placement.all_cores,
        refusals=tuple(refusals),
        hint="",
        notes=(simulated_note(placement), *_fewer(spec, neuron, slot)),
        neuron=neuron,
        placement=placement,
        need=need,
    )


def _fewer(spec: LoadSpec, neuron: NeuronConfig, slot: int) -> tuple[str, ...]:
    """What is to be said where KV memory holds fewer sequences than the spec allows."""
    if neuron.batch_size >= spec.max_num_seqs:
        return ()
    room = spec.kv_cache_bytes or _DEFAULT_KV_BYTES
    return (
        f"{neuron.batch_size} sequences at once, not {spec.max_num_seqs}: one of {neuron.seq_len} "
        f"tokens takes {slot / _MIB:.0f} MiB of KV, of {room / _MIB:.0f} MiB. Ask for more KV "
        "memory or shorter sequences.",
    )


def compiled_programs(config: DecoderConfig, neuron: NeuronConfig) -> list[Program]:
    """Every program that is compiled: one per phase and bucket."""
    model = dense(config)
    buckets = [(Phase.CONTEXT_ENCODING, size) for size in neuron.context_buckets]
    buckets += [(Phase.TOKEN_GENERATION, size) for size in neuron.generation_buckets]
    return [
        decoder_program(model, neuron, phase=phase, bucket=size, rules=NXDI)
        for phase, size in buckets
    ]


def _dtype_of(spec: LoadSpec) -> Dtype:
    """Raises `UnsupportedModel`."""
    try:
        return Dtype(spec.dtype)
    except ValueError as error:
        raise UnsupportedModel(
            f"dtype {spec.dtype!r} is not supported by the neuron backend.",
            hint="Use bf16 or fp32.",
        ) from error


def _asked_length(declared: int, spec: LoadSpec, settings: Mapping[str, object]) -> int:
    """Positions of a sequence; `declared` by the model where nobody asked for a number."""
    asked = settings.get("seq_len")
    if isinstance(asked, int):
        return asked
    return spec.max_model_len or declared


def _kept_weights(config: DecoderConfig, neuron: NeuronConfig, need: CoreNeed) -> int:
    """Of a core, as this machine keeps them: 8-bit ones as the numbers that it multiplies them
    with."""
    if not neuron.quantized:
        return need.weights
    wide = replace(neuron, quantized=False)
    phase, bucket = Phase.TOKEN_GENERATION, neuron.generation_buckets[0]
    program = decoder_program(dense(config), wide, phase=phase, bucket=bucket, rules=NXDI)
    return kept_bytes([program], BufferKind.WEIGHT)


def host_refusals(weights: int, kv: int, placement: Placement) -> list[str]:
    """What stands against executing it here, where copies share their weights. KV takes no memory
    of the host's before it is used: all of one copy's must have room there. Bytes of a core."""
    host = machine_memory()
    weights, kv = weights * placement.cores, kv * placement.cores
    if weights > host:
        return [
            f"The weights take {weights} bytes, and this machine, which executes what the "
            f"simulated cores compute, has {host}. Models of this size can be compiled, timed and "
            "planned, not served."
        ]
    if weights + kv > host:
        return [
            f"The weights take {weights} bytes and the KV of all sequences {kv}, and this machine, "
            f"which executes what the simulated cores compute, has {host}. It takes fewer "
            "sequences (batch_size) or a shorter seq_len."
        ]
    return []


def simulated_note(placement: Placement) -> str:
    copies = "" if placement.copies == 1 else f"{placement.copies} copies of the model, each on "
    cores = "1 logical core" if placement.cores == 1 else f"{placement.cores} logical cores"
    return f"Simulated: {copies}{cores} of {placement.instance.name} at LNC {placement.lnc}."


def _slot_bytes(config: DecoderConfig, neuron: NeuronConfig) -> int:
    """KV of one sequence, on all cores."""
    one = replace(neuron, batch_size=1, tkg_batch_size=None)
    program = decoder_program(
        dense(config),
        one,
        phase=Phase.TOKEN_GENERATION,
        bucket=neuron.seq_len,
        rules=NXDI,
    )
    return kept_bytes([program], BufferKind.KV) * neuron.tp_degree


def _slots(spec: LoadSpec, settings: Mapping[str, object], slot: int) -> int:
    asked = settings.get("batch_size", settings.get("max_batch_size"))
    if isinstance(asked, int):
        return asked
    room = spec.kv_cache_bytes
    if spec.exact_num_seqs and room is None:
        return spec.max_num_seqs
    if room is None:
        room = max(_DEFAULT_KV_BYTES, slot)
    return min(spec.max_num_seqs, room // slot)


def program_refusals(
    programs: Sequence[Program], need: CoreNeed, placement: Placement
) -> list[str]:
    """Why programs cannot be compiled or loaded."""
    refusals = []
    if need.total > placement.core_memory_bytes:
        refusals.append(out_of_memory(need, placement))
    found = (too_many(one, placement.instance.chip, placement.lnc) for one in programs)
    refusals += [f"{one.message} {one.hint}" for one in found if one is not None]
    return refusals


_KINDS = {
    "model constants": "weights",
    "tensors": "KV cache, inputs and outputs",
    "shared scratchpad": "scratch",
}


def out_of_memory(need: CoreNeed, placement: Placement) -> str:
    """As the runtime says it, with the table by kind and what to change."""
    found = sorted(need.table().items(), key=lambda one: -one[1])
    table = "".join(
        f"\n  {size / _MIB:10.1f}MB {kind}{f' ({_KINDS[kind]})' if kind in _KINDS else ''}"
        for kind, size in found
    )
    return (
        f'status=4 message="Allocation Failure": a core needs {need.total / _MIB:.1f}MB of '
        f"device memory and has {placement.core_memory_bytes / _MIB:.1f}MB on "
        f"{placement.instance.name} at tp_degree {placement.cores}:{table}\n"
        f"It takes {_remedy(found[0][0], need, placement)}."
    )


def _remedy(largest: str, need: CoreNeed, placement: Placement) -> str:
    """What makes the largest part smaller. Degrees at which it would not fit even if every byte but
    the runtime's were split are not named."""
    splits = (need.total - need.runtime) * placement.cores
    larger = [
        one
        for one in allowed_degrees(placement.instance, placement.lnc)
        if one > placement.cores and splits / one <= placement.core_memory_bytes - need.runtime
    ]
    listed = " or ".join(map(str, larger))
    more = f"a tp_degree of {listed}" if larger else "an instance type with more memory in all"
    if largest == "model constants":
        return more if need.quantized else f"{more}, or quantized weights"
    if largest == "tensors":
        return f"{more}, fewer sequences (batch_size) or a shorter seq_len"
    if not need.kv:
        return f"{more}, fewer texts in a call (batch_size) or a shorter seq_len"
    return f"{more}, or a shorter max_context_length or seq_len: prompts take the most"
