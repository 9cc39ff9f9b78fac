"""Fits or does not fit: what is said beforehand, against an allocator that a run goes through."""

from __future__ import annotations

from random import Random

import pytest

from ridgeline_backends.neuron.allocator import run_through
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices import chip, instance
from ridgeline_backends.neuron.heap import DeviceHeap, OutOfDeviceMemory
from ridgeline_backends.neuron.liveness import Bucketed, CoreNeed, bucketed_need, core_need
from ridgeline_backends.neuron.placement import place
from ridgeline_backends.neuron.plan import out_of_memory
from ridgeline_backends.neuron.program import ElementType, Program

CHIP = chip("inferentia2")
CONFIGURATIONS = 200
SMALL: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "vocab_size": 32_000,
}


def programs(random: Random) -> tuple[Program, ...]:
    """Both phases of a random decoder, dense or of experts, under random settings."""
    head = random.choice([64, 128])
    kv = random.choice([1, 2, 4, 8])
    heads = kv * random.choice([1, 2, 4, 8])
    hidden = head * heads
    model: dict[str, object] = {
        "model_type": random.choice(["llama", "mistral", "opt", "mixtral"]),
        "hidden_size": hidden,
        "num_hidden_layers": random.choice([2, 4, 16, 48]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": 128 * random.randint(4, 80),
        "vocab_size": random.choice([32_000, 128_256]),
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    length = random.choice([512, 2048, 8192])
    config = NeuronConfig(
        tp_degree=random.choice([1, 2, 8, 24]),
        batch_size=random.choice([1, 4, 32]),
        seq_len=length,
        torch_dtype=random.choice([ElementType.BF16, ElementType.FP32]),
        quantized=random.random() < 0.3,
        fused_qkv=random.random() < 0.5,
        sequence_parallel_enabled=random.random() < 0.3,
        on_device_sampling=random.random() < 0.5,
    )
    return tuple(
        build_decoder(model, config, phase=phase, bucket=length)
        for phase in (Phase.CONTEXT_ENCODING, Phase.TOKEN_GENERATION)
    )


def test_what_is_said_to_fit_runs_and_little_else_does() -> None:
    """200 configurations, each on a core with about the memory that it needs."""
    random = Random(5)
    right = false_fits = 0
    for _ in range(CONFIGURATIONS):
        built = programs(random)
        need = core_need(built, CHIP).total
        limit = round(need * random.uniform(0.6, 1.5))
        said = need <= limit
        try:
            run_through(built, CHIP, limit)
            ran = True
        except OutOfDeviceMemory:
            ran = False
        right += said is ran
        false_fits += said and not ran
    assert false_fits == 0
    assert right >= 0.98 * CONFIGURATIONS


def test_a_heap_fills_gaps_and_says_what_is_missing() -> None:
    heap = DeviceHeap(640)
    first, second, third = (heap.take(128) for _ in range(3))
    heap.give_back(second)
    assert heap.take(100) == second
    assert (first, third, heap.in_use, heap.peak) == (0, 256, 384, 384)
    with pytest.raises(OutOfDeviceMemory, match="320 bytes find no room in 640"):
        heap.take(300)
    assert heap.take(256) == 384


def test_a_need_does_not_depend_on_the_order_of_programs() -> None:
    """KV of a decode batch is there, whichever program is listed last."""
    config = NeuronConfig(batch_size=32, seq_len=512)
    step = build_decoder(SMALL, config, phase=Phase.TOKEN_GENERATION, bucket=512)
    one = NeuronConfig(batch_size=1, seq_len=512)
    prompt = build_decoder(SMALL, one, phase=Phase.CONTEXT_ENCODING, bucket=512)
    assert core_need([step, prompt], CHIP) == core_need([prompt, step], CHIP)
    assert core_need([step, prompt], CHIP).kv == core_need([step], CHIP).kv


@pytest.mark.parametrize("length", [128, 256, 2048, 8192])
@pytest.mark.parametrize("name", ["smollm2-135m", "llama-3.1-8b", "mixtral-8x7b"])
def test_the_outermost_buckets_tell_the_need_of_all(name: str, length: int) -> None:
    """Within a percent, and never less than 99.9% of it."""
    given = find(name, "decoders").config
    config = NeuronConfig(tp_degree=2, batch_size=8, seq_len=length)

    def built(phase: Phase, bucket: int) -> Program:
        return build_decoder(given, config, phase=phase, bucket=bucket)

    phases = ((Phase.CONTEXT_ENCODING, config.context_buckets),
              (Phase.TOKEN_GENERATION, config.generation_buckets))  # fmt: skip
    all_of_them = core_need([built(phase, size) for phase, sizes in phases for size in sizes], CHIP)
    told = bucketed_need(
        [Bucketed(built(phase, s[0]), built(phase, s[-1]), s) for phase, s in phases], CHIP
    )
    assert 0.999 <= told.total / all_of_them.total <= 1.01
    assert told.kv == all_of_them.kv


def needed(name: str, on: str, *, batch: int, length: int, degree: int) -> CoreNeed:
    """With the longest buckets of both phases."""
    config = NeuronConfig(tp_degree=degree, batch_size=batch, seq_len=length, fused_qkv=True)
    model = find(name, "decoders").config
    built = [
        build_decoder(model, config, phase=phase, bucket=length)
        for phase in (Phase.CONTEXT_ENCODING, Phase.TOKEN_GENERATION)
    ]
    return core_need(built, instance(on).chip)


def test_rings_are_as_large_as_published_ones() -> None:
    """Llama-3.1-8B on inf2.48xlarge: 392 MB on the core with the whole embedding, 220 on others."""
    found = needed("llama-3.1-8b", "inf2.48xlarge", batch=32, length=4096, degree=8)
    assert 220e6 < found.dma_rings < 392e6


def test_what_was_run_in_public_fits() -> None:
    """Llama-3.1-405B in bf16 over 64 cores of Trainium2, whose DMA needs no rings: 10,000 tokens
    in, 1,500 out (the tutorial of NxD Inference)."""
    found = needed("llama-3.1-405b", "trn2.48xlarge", batch=1, length=11_500, degree=64)
    assert found.dma_rings == 0
    assert found.total < instance("trn2.48xlarge").core_memory_bytes(2)


def test_weights_that_are_quantised_are_not_told_to_be() -> None:
    config = find("llama-3.1-405b", "decoders").config
    placement = place("trn1.32xlarge", 32, None)

    def said(quantized: bool) -> str:
        neuron = NeuronConfig(tp_degree=32, seq_len=2048, quantized=quantized)
        step = build_decoder(config, neuron, phase=Phase.TOKEN_GENERATION, bucket=2048)
        return out_of_memory(core_need([step], placement.instance.chip), placement)

    more = "It takes an instance type with more memory in all"
    assert said(quantized=False).endswith(f"{more}, or quantized weights.")
    assert said(quantized=True).endswith(f"{more}.")
