"""How a decoder lies in the memory of one or several GPUs, and whether it does. Imports no torch.

Each GPU of a tensor-parallel model holds its share of the matrices, all of the embedding, and the
KV memory of its own heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ridgeline_backends.base import Dtype, LoadSpec, MemoryNeed, Plan
from ridgeline_backends.cuda.devices import Gpu
from ridgeline_backends.models.config import DecoderConfig

FLASH_BLOCK = 256
"""Tokens in a block of KV memory where torch's own attention reads it: it takes no fewer."""

_USED = 0.92
"""The share of a GPU's free memory that is planned with; the rest is the CUDA context's, NCCL's,
and the allocator's fragments."""

_OLD = (
    "{name} has compute capability {major}.{minor}, below 8.0: it multiplies no bfloat16 matrices "
    "and torch's attention kernels do not run on it, so the model runs in float32 with plain "
    "operations, in twice the memory and several times slower."
)
_PLAIN = (
    "Attention runs in plain operations, several times slower than torch's own kernels, because {}."
)


@dataclass(frozen=True, slots=True)
class _Need:
    memory: MemoryNeed
    blocks: int
    sequence: int


def runs_flash(config: DecoderConfig, dtype: Dtype, gpu: Gpu) -> str:
    """Why torch's own attention kernels cannot run this model, or nothing."""
    if not gpu.has_bf16:
        return "the GPU is too old for them"
    if dtype is not Dtype.BF16:
        return "they take no float32"
    if config.attention_softcap is not None:
        return "they cannot cap scores softly"
    if config.head_dim % 8 or config.head_dim > 256:
        return f"they take no heads of {config.head_dim}"
    return ""


def shard_config(config: DecoderConfig, degree: int) -> DecoderConfig:
    """What one of `degree` processes computes of each layer."""
    return replace(
        config,
        heads=config.heads // degree,
        kv_heads=config.kv_heads // degree,
        intermediate=config.intermediate // degree,
    )


def decoder_plan(
    config: DecoderConfig, architecture: str, spec: LoadSpec, dtype: Dtype, gpus: Sequence[Gpu]
) -> Plan:
    """The plan for a decoder on the first of `gpus`, at least one. Its spec is the one to load
    with: the tensor-parallel degree and the block size are decided in it."""
    gpu = gpus[0]
    notes: list[str] = []
    if dtype is Dtype.BF16 and not gpu.has_bf16:
        dtype = Dtype.FP32
        major, minor = gpu.capability
        notes.append(_OLD.format(name=gpu.name, major=major, minor=minor))
    why_plain = runs_flash(config, dtype, gpu)
    if why_plain and gpu.has_bf16:
        notes.append(_PLAIN.format(why_plain))
    degree = spec.tensor_parallel or len(gpus)
    block = spec.block_size if why_plain else max(FLASH_BLOCK, spec.block_size)
    spec = replace(spec, tensor_parallel=degree, block_size=block)
    max_len = spec.max_model_len or config.context_length
    refusals = _refusals(config, spec, len(gpus), max_len)
    available = int(min(gpu.free_bytes for gpu in gpus[:degree]) * _USED)
    fits_apart = config.kv_heads % degree == 0 and config.intermediate % degree == 0
    need = _need(config, spec, dtype, degree if fits_apart else 1, max_len, available)
    if need.blocks * spec.block_size < max_len:
        refusals.append(
            f"KV memory of {need.memory.kv} bytes holds less than one sequence of {max_len} "
            f"tokens, which takes {need.sequence}."
        )
    if need.memory.total > available:
        refusals.append(
            f"It needs {need.memory.total} bytes of memory on each GPU; there are {available}."
        )
    return Plan(
        backend="cuda",
        architecture=architecture,
        dtype=dtype,
        spec=spec,
        max_model_len=max_len,
        kv_blocks=need.blocks,
        memory=need.memory,
        available_bytes=available,
        refusals=tuple(refusals),
        notes=tuple(notes),
    )


def _refusals(config: DecoderConfig, spec: LoadSpec, gpus: int, max_len: int) -> list[str]:
    refusals = []
    degree = spec.tensor_parallel or 1
    if degree > gpus:
        refusals.append(
            f"A tensor-parallel degree of {degree} needs as many GPUs; there are {gpus}."
        )
    if config.kv_heads % degree or config.intermediate % degree:
        refusals.append(
            f"A tensor-parallel degree of {degree} does not divide {config.kv_heads} KV heads and "
            f"{config.intermediate} intermediate rows."
        )
    if degree > 1 and spec.max_adapters:
        refusals.append("LoRA adapters and a tensor-parallel degree above 1 do not go together.")
    if spec.quantize:
        refusals.append(f"quantize {spec.quantize!r} is not supported by the cuda backend.")
    if max_len > config.context_length:
        refusals.append(
            f"max_model_len {max_len} is above the model's context length {config.context_length}."
        )
    if spec.max_tokens_per_step < spec.max_num_seqs:
        refusals.append(
            f"max_tokens_per_step {spec.max_tokens_per_step} is below "
            f"max_num_seqs {spec.max_num_seqs}."
        )
    return refusals


def _need(
    full: DecoderConfig, spec: LoadSpec, dtype: Dtype, degree: int, max_len: int, available: int
) -> _Need:
    """Bytes on each GPU."""
    config = shard_config(full, degree)
    table = full.vocab_size * full.hidden
    # A tied head is laid out apart from the embedding.
    head = -(-table // degree)
    layers = full.layers * sum(rows * columns for rows, columns in config.linear_shapes.values())
    vectors = full.vector_parameters + len(full.ropes) * 2 * max_len * full.rotary_dim
    adapted = config.adapter_shapes(spec.max_adapter_rank).values()
    adapter = config.layers * sum((rows + columns) * rank for rows, columns, rank in adapted)
    weights = (layers + head + table) * dtype.bytes + 4 * (vectors + spec.max_adapters * adapter)
    rows = max(spec.max_tokens_per_step, 128)
    # Sampling is in float64 and holds a few copies.
    logits = 6 * spec.max_num_seqs * full.vocab_size
    scratch = 4 * (rows * 8 * (full.hidden + full.intermediate) + logits)
    per_block = 2 * full.layers * config.kv_heads * full.head_dim * dtype.bytes * spec.block_size
    sequence = -(-max_len // spec.block_size) * per_block
    kv = spec.kv_cache_bytes
    if kv is None:
        kv = max(min(spec.max_num_seqs * sequence, available - weights - scratch), sequence)
    blocks = kv // per_block
    return _Need(
        MemoryNeed(weights=weights, kv=blocks * per_block, scratch=scratch), blocks, sequence
    )
