"""How much memory a model takes on the CPU, and how much there is. Imports no torch."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from ridgeline_backends.base import Dtype, LoadSpec, MemoryNeed
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.encoder_config import EncoderConfig

# Unless told otherwise, KV memory is as large as the weights, within these. Prefixes are kept as
# long as there is room, so in time all of it is in use.
_LEAST_KV_BYTES, _MOST_KV_BYTES = 1 << 28, 1 << 30
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Keys are gathered and scored in tiles of about this many tokens, in float32.
_TILE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderForm:
    """How a decoder lies in memory. `stored` is the type of tables and KV, `matrix_bytes` the size
    of a weight that is multiplied. `shares_table`: a tied head is the embedding itself; else it is
    laid out apart. `gathers_keys`: attention copies what it reads."""

    stored: Dtype
    matrix_bytes: int
    shares_table: bool
    gathers_keys: bool


@dataclass(frozen=True, slots=True)
class DecoderNeed:
    """The result of sizing: memory by kind and the KV blocks in it."""

    memory: MemoryNeed
    kv_blocks: int
    sequence_kv: int


def machine_memory() -> int:
    """Bytes this process may use: the machine's, or less by its control group or RLIMIT_DATA.

    RLIMIT_DATA bounds what a process maps privately and may write, so what it has mapped already
    (torch's own share) is taken off.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        total = min(total, max(0, limit - _mapped_data()))
    return total


def _mapped_data() -> int:
    """Bytes of this process that count towards RLIMIT_DATA; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmData:")]
    return int(sizes[0]) * 1024 if sizes else 0


def decoder_need(
    config: DecoderConfig, spec: LoadSpec, form: DecoderForm, *, max_model_len: int, available: int
) -> DecoderNeed:
    """Size a model that is held in this form."""
    table = config.vocab_size * config.hidden
    matrices = config.layers * sum(a * b for a, b in config.linear_shapes.values()) + table
    vectors = config.vector_parameters * 4
    rope = len(config.ropes) * 2 * max_model_len * config.rotary_dim * 4
    weights = matrices * form.matrix_bytes + vectors + rope
    if not (form.shares_table and config.tied_head):
        weights += table * form.stored.bytes
    adapted = config.adapter_shapes(spec.max_adapter_rank).values()
    adapter = config.layers * sum((rows + columns) * rank for rows, columns, rank in adapted)
    weights += spec.max_adapters * adapter * 4
    scratch = _decoder_scratch(config, spec, form, max_model_len)
    per_token = 2 * config.layers * config.kv_heads * config.head_dim * form.stored.bytes
    per_block = per_token * spec.block_size
    sequence = -(-max_model_len // spec.block_size) * per_block
    if spec.kv_cache_bytes is not None:
        kv = spec.kv_cache_bytes
    else:
        usual = min(max(config.parameters * form.stored.bytes, _LEAST_KV_BYTES), _MOST_KV_BYTES)
        wanted = min(spec.max_num_seqs * sequence, max(sequence, usual))
        kv = max(min(wanted, available - weights - scratch), sequence)
    blocks = kv // per_block
    memory = MemoryNeed(weights=weights, kv=blocks * per_block, scratch=scratch)
    return DecoderNeed(memory, blocks, sequence)


def encoder_need(config: EncoderConfig, spec: LoadSpec) -> MemoryNeed:
    """Size an encoder, which computes in float32."""
    rows = max(spec.max_tokens_per_step, config.context_length)
    # Scores, and for models with relative positions a bias as large.
    attention = (1 + bool(config.relative_buckets)) * config.heads * config.context_length**2
    scratch = (rows * (config.intermediate * 3 + config.hidden * 6) + 2 * attention) * 4
    return MemoryNeed(weights=config.parameters * 4, kv=0, scratch=scratch)


def _decoder_scratch(
    config: DecoderConfig, spec: LoadSpec, form: DecoderForm, max_model_len: int
) -> int:
    rows = max(spec.max_tokens_per_step, spec.max_num_seqs)
    activations = rows * (6 * config.hidden + 6 * config.intermediate)
    logits = 2 * spec.max_num_seqs * config.vocab_size
    gathered = 0
    if form.gathers_keys:
        scores = rows * config.heads * (3 * _TILE + 3 * config.head_dim)
        width = max_model_len * config.kv_heads * config.head_dim
        gathered = scores + 3 * spec.max_num_seqs * width
    return 4 * (activations + gathered + logits)
