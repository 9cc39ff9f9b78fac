"""The fit check for models on the generic path."""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline_backends.base import Dtype, LoadSpec, MemoryNeed, Plan
from ridgeline_backends.generic.describe import Description, describe

_NOTE = (
    "{reason} It runs on the generic path, by the transformers library: one sequence at a time, "
    "without prefix sharing, several times slower than a native architecture."
)


def generic_plan(
    config: Mapping[str, object],
    spec: LoadSpec,
    *,
    backend: str,
    dtype: Dtype,
    available: int,
    reason: str,
) -> Plan:
    """`reason`: why no native code runs the model. `dtype`: what it is computed in, too.

    Raises `UnsupportedModel` and `InvalidModel`.
    """
    model = describe(config)
    max_len = spec.max_model_len or model.context_length
    refusals = []
    if max_len > model.context_length:
        refusals.append(
            f"max_model_len {max_len} is above the model's context length {model.context_length}."
        )
    weights = model.parameters * dtype.bytes
    scratch = _scratch(model, max_len)
    per_slot = max_len * model.kv_width * dtype.bytes
    kv = spec.kv_cache_bytes
    if kv is None:
        kv = max(min(spec.max_num_seqs * per_slot, available - weights - scratch), per_slot)
    slots = min(kv // per_slot, spec.max_num_seqs)
    if not slots:
        refusals.append(
            f"KV memory of {kv} bytes holds less than one sequence of {max_len} tokens, "
            f"which takes {per_slot}."
        )
    memory = MemoryNeed(weights=weights, kv=slots * per_slot, scratch=scratch)
    if memory.total > available:
        refusals.append(f"It needs {memory.total} bytes of memory; there are {available}.")
    return Plan(
        backend=backend,
        architecture=model.architecture,
        dtype=dtype,
        spec=spec,
        max_model_len=max_len,
        kv_blocks=slots,
        memory=memory,
        available_bytes=available,
        generic=True,
        refusals=tuple(refusals),
        notes=(_NOTE.format(reason=reason),),
    )


def _scratch(model: Description, max_len: int) -> int:
    """One prompt at a time: attention may be a whole square, and logits may be of every token."""
    rows = max_len * (2 * model.vocab_size + 8 * model.kv_width)
    return 4 * (rows + 2 * max_len * max_len)
