"""vLLM in the place of our engine: which settings it takes, and what a model's config tells it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ridgeline_backends.engine import Engine
from ridgeline_backends.vllm.opening import VllmSpec, open_vllm
from ridgeline_service.serving.llm.compiling import context_length
from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.settings import DEFAULT_DTYPE, ModelSettings


def vllm_engine(
    directory: Path,
    config: Mapping[str, object],
    settings: ModelSettings,
    *,
    eos: frozenset[int],
    max_live: int,
) -> Engine:
    """An engine that has started.

    Raises BackendUnusable where vLLM is missing, InvalidSetting for what it is not asked here.
    """
    if settings.quantize is not None:
        raise InvalidSetting(
            f"quantize {settings.quantize} is this server's own; the vLLM engine does not have it.",
            hint="Leave it out, or leave the engine out.",
        )
    degree = settings.tensor_parallel
    if degree is None:
        raise InvalidSetting(
            "A tensor-parallel degree of all devices cannot be told to vLLM.",
            hint="Write the number of GPUs.",
        )
    spec = VllmSpec(
        dtype=settings.dtype or DEFAULT_DTYPE,
        max_model_len=context_length(_number(config, "max_position_embeddings"), settings),
        max_num_seqs=settings.max_num_seqs,
        max_live=max_live,
        kv_cache_bytes=settings.kv_cache_bytes,
        max_tokens_per_step=settings.max_tokens_per_step,
        tensor_parallel=degree,
        max_adapters=settings.max_adapters,
        max_adapter_rank=settings.max_adapter_rank,
    )
    engine = open_vllm(directory, spec, vocab_size=_number(config, "vocab_size"), eos=eos)
    engine.start()
    return engine


def _number(config: Mapping[str, object], name: str) -> int:
    """A setting of the language model, which may be a part of the config."""
    part = config.get("text_config")
    values = {**config, **part} if isinstance(part, Mapping) else config
    found = values.get(name)
    if not isinstance(found, int):
        raise InvalidSetting(
            f"config.json has no {name}, which the vLLM engine is to be told.",
            hint="Leave the engine out, or complete the config.",
        )
    return found
