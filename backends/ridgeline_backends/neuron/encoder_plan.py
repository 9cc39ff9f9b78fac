"""Whether a text encoder fits a group of simulated cores, and how it is compiled for them.

A program for each bucket, for one text and for a batch of them: a call takes as long however much
of it is filled up. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline_backends.base import LoadSpec, MemoryNeed
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.builders.text_encoder import text_encoder_program
from ridgeline_backends.neuron.config import NeuronConfig, neuron_config
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.plan import (
    NeuronPlan,
    host_refusals,
    program_refusals,
    simulated_note,
    target,
)
from ridgeline_backends.neuron.program import Program

NOT_QUANTISED = "The matrices of encoders are not quantised on Neuron; use bf16 or fp32."

MOST_TEXTS = 16
"""The most texts of a compiled call: as many as a server hands over at once."""


LONGEST = 2048
"""Positions that an endpoint compiles where nobody asks for a number."""


def encoder_plan(
    config: EncoderConfig,
    architecture: str,
    spec: LoadSpec,
    *,
    settings: Mapping[str, object],
    instance: str | None,
    backend: str,
) -> NeuronPlan:
    """As `plan.decoder_plan`. Memory is that of the usual pooling, which needs the most."""
    dtype, placement, length, refusals = target(config.context_length, spec, settings, instance)
    neuron = neuron_config(
        {
            "torch_dtype": dtype.value,
            "batch_size": min(spec.max_num_seqs, MOST_TEXTS),
            **settings,
            "seq_len": length,
            "tp_degree": placement.cores,
        }
    )
    if spec.quantize or neuron.quantized:
        refusals.append(NOT_QUANTISED)
    programs = encoder_programs(config, neuron, Pooling())
    need = core_need(programs, placement.instance.chip)
    refusals.extend(program_refusals(programs, need, placement))
    memory = MemoryNeed(
        weights=need.weights * placement.all_cores,
        kv=0,
        scratch=(need.total - need.weights) * placement.all_cores,
    )
    refusals.extend(host_refusals(need.weights, 0, placement))
    return NeuronPlan(
        backend=backend,
        architecture=architecture,
        dtype=dtype,
        spec=spec,
        max_model_len=length,
        kv_blocks=0,
        memory=memory,
        available_bytes=placement.core_memory_bytes * placement.all_cores,
        refusals=tuple(refusals),
        hint="",
        notes=(simulated_note(placement), *_fewer(spec)),
        neuron=neuron,
        placement=placement,
        need=need,
    )


def _fewer(spec: LoadSpec) -> tuple[str, ...]:
    if not spec.exact_num_seqs or spec.max_num_seqs <= MOST_TEXTS:
        return ()
    return (f"{MOST_TEXTS} texts in a call, the most there are, not {spec.max_num_seqs}.",)


def encoder_programs(
    config: EncoderConfig, neuron: NeuronConfig, pooling: Pooling
) -> list[Program]:
    """Every program that is compiled."""
    return [
        text_encoder_program(config, neuron, pooling=pooling, bucket=bucket, batch=batch)
        for batch in sorted({1, neuron.batch_size})
        for bucket in neuron.context_buckets
    ]
