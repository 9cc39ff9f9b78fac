"""Executes engine steps of a decoder on the CPU: one flat row of tokens through the layers.

Prefill chunks and decodes are not told apart outside attention; sampling is done here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from ridgeline_backends.base import (
    AnyAdapter,
    Artifact,
    DeviceTime,
    Dtype,
    LoraRunner,
    ModelRunner,
    PagedLayout,
    RunnerLimits,
    Step,
    StepResult,
)
from ridgeline_backends.cpu.adapters import AttachedAdapters
from ridgeline_backends.cpu.attention import AttentionRule, KVCache, StepAttention
from ridgeline_backends.cpu.linear import choose_form, has_bf16
from ridgeline_backends.models.config import DecoderConfig, decoder_config
from ridgeline_backends.models.decoder import Decoder, read_decoder
from ridgeline_backends.models.lora import Adapter, read_adapter
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.sampling import results, wanted_rows
from ridgeline_backends.torch_threads import TorchThreads

_DRAFT_TOKENS = 16
"""Guesses in one chunk. More rows cost more than the last of them can hope to save."""


class CpuRunner(ModelRunner, LoraRunner):
    """A decoder with its KV memory. `linear_form` says how its matrices are multiplied."""

    def __init__(
        self, artifact: Artifact, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        plan = artifact.plan
        self._clock = clock
        self._threads = TorchThreads()
        self._config = config = _read_config(artifact)
        stored = torch.bfloat16 if plan.dtype is Dtype.BF16 else torch.float32
        multiplied = stored if has_bf16() else torch.float32
        shapes = [*config.linear_shapes.values(), (config.vocab_size, config.hidden)]
        with torch.inference_mode():
            self.linear_form, form = choose_form(shapes, multiplied)
            with Weights(artifact.model_dir) as weights:
                self._model = Decoder(
                    config,
                    read_decoder(config, weights),
                    # Through the stored type first: fp32 weights served as bf16 are rounded.
                    lambda weight: form(weight.to(stored)),
                    table_dtype=stored,
                    max_positions=plan.max_model_len,
                )
            self._cache = KVCache(
                config.layers,
                config.kv_heads,
                config.head_dim,
                plan.kv_blocks,
                plan.spec.block_size,
                stored,
            )
            spec = plan.spec
            self._max_rank = spec.max_adapter_rank
            self._max_adapters = spec.max_adapters
            self._adapters = AttachedAdapters(config, self._max_rank)
        self._rule = AttentionRule(config.attention_scale, config.windows, config.attention_softcap)
        self._limits = RunnerLimits(
            max_model_len=plan.max_model_len,
            max_tokens=plan.spec.max_tokens_per_step,
            max_sequences=plan.spec.max_num_seqs,
            kv_layout=PagedLayout(plan.spec.block_size, plan.kv_blocks),
            draft_tokens=_DRAFT_TOKENS,
        )

    @property
    def limits(self) -> RunnerLimits:
        return self._limits

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return self._config.eos_token_ids

    @property
    def max_adapters(self) -> int:
        return self._max_adapters

    def read_adapter(self, name: str, directory: Path) -> Adapter:
        return read_adapter(name, directory, self._config, max_rank=self._max_rank)

    def attach_adapter(self, adapter: AnyAdapter) -> None:
        assert isinstance(adapter, Adapter), "an adapter that another runner has read"
        self._threads.adopt()
        with torch.inference_mode():
            self._adapters.attach(adapter)

    def detach_adapter(self, name: str) -> None:
        self._adapters.detach(name)

    def execute(self, step: Step) -> StepResult:
        begin = self._clock()
        self._threads.adopt()
        with torch.inference_mode():
            found = results(step, self.logits(step))
        return StepResult(
            tokens=found.tokens,
            scores=found.scores,
            device_time=DeviceTime(seconds=self._clock() - begin),
        )

    def logits(self, step: Step, *, every_token: bool = False) -> torch.Tensor:
        """Run the step; float32 logits [rows, vocabulary] of `wanted_rows`, or of every token in
        the step."""
        tokens: list[int] = []
        positions: list[int] = []
        for chunk in step.chunks:
            tokens.extend(chunk.tokens)
            positions.extend(range(chunk.start, chunk.start + len(chunk.tokens)))
        wanted = range(len(tokens)) if every_token else wanted_rows(step)
        return self._model.forward(
            torch.tensor(tokens),
            torch.tensor(positions),
            StepAttention(self._cache, step.chunks, self._rule),
            torch.tensor(list(wanted), dtype=torch.int64),
            self._adapters.of(step.chunks),
        )


def _read_config(artifact: Artifact) -> DecoderConfig:
    generation = artifact.model_dir / "generation_config.json"
    return decoder_config(
        read_json(artifact.model_dir / "config.json"),
        read_json(generation) if generation.is_file() else None,
    )
