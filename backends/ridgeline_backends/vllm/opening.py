"""From a model directory to an engine that runs it with vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ridgeline_backends.engine.api import MAX_LOGPROBS
from ridgeline_backends.errors import BackendUnusable
from ridgeline_backends.vllm.engine import VllmEngine

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSpec:
    """How vLLM is to serve. None leaves the choice to vLLM."""

    dtype: str
    max_model_len: int
    max_num_seqs: int
    max_live: int
    kv_cache_bytes: int | None = None
    max_tokens_per_step: int | None = None
    tensor_parallel: int = 1
    max_adapters: int = 0
    max_adapter_rank: int = 16


def is_installed() -> bool:
    """Whether vLLM can be imported, as far as that is known without doing so."""
    return find_spec("vllm") is not None


def open_vllm(
    model_dir: Path, spec: VllmSpec, *, vocab_size: int, eos: frozenset[int]
) -> VllmEngine:
    """An engine that is yet to be started. Raises `BackendUnusable` where vLLM is missing."""
    if not is_installed():
        raise BackendUnusable("vllm", "vLLM is not installed here", hint="pip install vllm")

    def make() -> Any:
        # Here, because it takes many seconds to import.
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments(model_dir, spec)))

    return VllmEngine(
        make,
        max_model_len=spec.max_model_len,
        vocab_size=vocab_size,
        eos=eos,
        max_live=spec.max_live,
        max_adapters=spec.max_adapters,
    )


def arguments(model_dir: Path, spec: VllmSpec) -> dict[str, object]:
    """vLLM's engine arguments."""
    wanted: dict[str, object] = {
        "model": str(model_dir),
        "skip_tokenizer_init": True,
        "dtype": _DTYPES[spec.dtype],
        "max_model_len": spec.max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "max_logprobs": MAX_LOGPROBS,
        "tensor_parallel_size": spec.tensor_parallel,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "disable_log_stats": True,
    }
    if spec.kv_cache_bytes is not None:
        wanted["kv_cache_memory_bytes"] = spec.kv_cache_bytes
    if spec.max_tokens_per_step is not None:
        wanted["max_num_batched_tokens"] = spec.max_tokens_per_step
    if spec.max_adapters:
        wanted |= {
            "enable_lora": True,
            "max_loras": spec.max_adapters,
            "max_lora_rank": spec.max_adapter_rank,
        }
    return wanted
