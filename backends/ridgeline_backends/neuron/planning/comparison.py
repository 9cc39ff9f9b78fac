"""What GPUs and processors would take for the same model: by their data sheets, nothing else.

A roofline is a bound that no server reaches; it says where a comparison is worth a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.builders.text_encoder import text_encoder_program
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices.loader import other_instances
from ridgeline_backends.neuron.devices.model import OtherInstance
from ridgeline_backends.neuron.liveness import kept_bytes
from ridgeline_backends.neuron.planning.ranking import usd_per_million
from ridgeline_backends.neuron.program import BufferKind

_GIB = 1 << 30
_BATCH = 32
_USABLE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Bounds of an instance type, all its devices together. `usd_per_million` None: no price."""

    name: str
    device: str
    batch: int
    tpot_s: float
    tokens_s: float
    usd_per_million: float | None


def rooflines(model: DecoderArchitecture, length: int) -> tuple[Roofline, ...]:
    """Of every type whose memory holds the model in bf16, the cheapest first."""
    config = NeuronConfig(batch_size=1, seq_len=length, fused_qkv=True)
    program = decoder_program(
        model, config, phase=Phase.TOKEN_GENERATION, bucket=length, rules=NXDI, batch=1
    )
    weights = kept_bytes([program], BufferKind.WEIGHT)
    kv = kept_bytes([program], BufferKind.KV)
    flops = sum(times * one.flops for one, times in program.operations())
    found = [
        _roofline(one, weights, kv, flops)
        for one in other_instances().values()
        if one.devices * one.memory_gib * _GIB * _USABLE > weights + kv
    ]
    return tuple(sorted(found, key=lambda one: (one.usd_per_million is None, _cost(one))))


def _roofline(one: OtherInstance, weights: int, kv: int, flops: int) -> Roofline:
    room = one.devices * one.memory_gib * _GIB * _USABLE - weights
    batch = int(min(_BATCH, room // kv))
    seconds = (weights + batch * kv) / (one.devices * one.gb_s * 1e9)
    if one.bf16_tflops is not None:
        seconds = max(seconds, batch * flops / (one.devices * one.bf16_tflops * 1e12))
    tokens = batch / seconds
    return Roofline(
        name=one.name,
        device=f"{one.devices} x {one.device}",
        batch=batch,
        tpot_s=seconds,
        tokens_s=tokens,
        usd_per_million=usd_per_million(one.price_usd_h, tokens),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRoofline:
    """As `Roofline`: a call for `batch` texts on one device, and the texts that all devices read a
    second."""

    name: str
    device: str
    batch: int
    call_s: float
    texts_s: float
    usd_per_million: float | None


def encoder_rooflines(model: EncoderConfig, bucket: int) -> tuple[EncoderRoofline, ...]:
    """Of every type that has a peak on its data sheet, the cheapest first: a call is arithmetic, so
    that nothing can be said of the others."""
    neuron = NeuronConfig(batch_size=_BATCH, seq_len=bucket)
    program = text_encoder_program(model, neuron, pooling=Pooling(), bucket=bucket, batch=_BATCH)
    weights = kept_bytes([program], BufferKind.WEIGHT)
    found = []
    for one in other_instances().values():
        if one.bf16_tflops is None:
            continue
        seconds = max(program.flops / (one.bf16_tflops * 1e12), weights / (one.gb_s * 1e9))
        texts = one.devices * _BATCH / seconds
        found.append(
            EncoderRoofline(
                name=one.name,
                device=f"{one.devices} x {one.device}",
                batch=_BATCH,
                call_s=seconds,
                texts_s=texts,
                usd_per_million=usd_per_million(one.price_usd_h, texts),
            )
        )
    return tuple(sorted(found, key=lambda one: (one.usd_per_million is None, _cost(one))))


def _cost(one: Roofline | EncoderRoofline) -> float:
    return one.usd_per_million or 0.0
