"""A model directory planned for its backend, and compiled: what is asked of it, and why not."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ridgeline_backends.base import Artifact, Backend, LoadSpec, Plan
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.models.encoder_families import EMBEDDING_FAMILIES
from ridgeline_backends.models.sentence_files import trained_length
from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.settings import DEFAULT_DTYPE, ModelSettings

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 8192
"""Context length when nobody chose one: models declare far more than their requests use."""

SIMULATED_CONTEXT = 2048
"""The same on simulated devices, which keep memory for the whole length of every sequence."""


def compiled(
    backend: Backend, directory: Path, config: Mapping[str, object], settings: ModelSettings
) -> Artifact:
    """Raises InvalidSetting, DoesNotFit and the backend's errors."""
    spec = LoadSpec(
        dtype=settings.dtype or DEFAULT_DTYPE,
        max_num_seqs=settings.max_num_seqs,
        exact_num_seqs=settings.exact_num_seqs,
        kv_cache_bytes=settings.kv_cache_bytes,
        block_size=settings.block_size,
        threads=settings.threads,
        max_adapters=settings.max_adapters,
        max_adapter_rank=settings.max_adapter_rank,
        quantize=settings.quantize,
        tensor_parallel=settings.tensor_parallel,
        data_parallel=settings.data_parallel,
        instance=settings.instance,
        logical_nc_config=settings.logical_nc_config,
        paced=settings.paced,
    )
    # A step must have room for one token of every sequence.
    step = max(settings.max_tokens_per_step or spec.max_tokens_per_step, settings.max_num_seqs)
    spec = replace(spec, max_tokens_per_step=step)
    # Where a config says how long a sequence may be differs between families; the backend knows.
    open_plan = backend.plan(config, spec)
    length = context_length(open_plan.max_model_len, settings)
    if settings.max_model_len is None and open_plan.architecture in EMBEDDING_FAMILIES:
        # What is longer than its texts may be is not compiled.
        length = min(length, trained_length(directory) or length)
    plan = backend.plan(config, replace(spec, max_model_len=length))
    for note in plan.notes:
        log.info("%s", note)
    if not plan.fits:
        raise DoesNotFit(plan.refusals, hint=_too_much_kv(plan) or _next_step(plan))
    log.info(
        "Plan: %s in %s, context %d, %d sequences at once, %.2f GiB of %.2f GiB",
        plan.architecture,
        f"{plan.dtype}, weights {spec.quantize}" if spec.quantize else plan.dtype,
        plan.max_model_len,
        plan.spec.max_num_seqs * spec.data_parallel,
        plan.memory.total / 2**30,
        plan.available_bytes / 2**30,
    )
    return backend.compile(directory, plan)


_VARIABLES = {
    "tp_degree": "OPTION_TENSOR_PARALLEL_DEGREE",
    "data_parallel_size": "OPTION_DATA_PARALLEL_SIZE",
    "batch_size": "OPTION_MAX_ROLLING_BATCH_SIZE",
    "max_num_seqs": "OPTION_MAX_ROLLING_BATCH_SIZE",
    "seq_len": "OPTION_MAX_MODEL_LEN",
    "max_model_len": "OPTION_MAX_MODEL_LEN",
}
"""What a backend calls a setting, and what a container's environment does."""


def _too_much_kv(plan: Plan) -> str:
    """What to do where the KV memory that was asked for is all that does not fit; else ""."""
    asked, memory = plan.spec.kv_cache_bytes, plan.memory
    room = plan.available_bytes - memory.weights - memory.scratch
    if asked is None or memory.kv <= room or room <= 0:
        return ""
    return (
        f"VLLM_CPU_KVCACHE_SPACE asks for {asked / 2**30:g} GiB of KV memory; beside the model "
        f"there are {room / 2**30:.1f} GiB. Lower it to at most {room // 2**30}, or leave it out."
    )


def _next_step(plan: Plan) -> str:
    """The plan's own, and where what it names is set."""
    said = f"{' '.join(plan.refusals)} {plan.hint}"
    named = [
        f"{name} is set by {variable}"
        for name, variable in _VARIABLES.items()
        if re.search(rf"\b{name}\b", said)
    ]
    return f"{plan.hint} {', '.join(named)}{'.' if named else ''}".strip()


def context_length(declared: int, settings: ModelSettings) -> int:
    """What was asked for, or what is usual, of what the model declares. Raises InvalidSetting."""
    wanted = settings.max_model_len
    if wanted is None:
        usual = DEFAULT_CONTEXT if settings.instance is None else SIMULATED_CONTEXT
        if declared > usual:
            log.info(
                "Context length %d of the model's %d; OPTION_MAX_MODEL_LEN chooses another.",
                usual,
                declared,
            )
        return min(declared, usual)
    if wanted > declared:
        raise InvalidSetting(
            f"A context length of {wanted} was asked for; the model has {declared}.",
            hint=f"Set OPTION_MAX_MODEL_LEN or MAX_TOTAL_TOKENS to at most {declared}.",
        )
    return wanted
