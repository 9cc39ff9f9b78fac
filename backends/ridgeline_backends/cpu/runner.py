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
    Plan,
    RunnerLimits,
    Step,
    StepResult,
)
from ridgeline_backends.cpu.kernels.library import library
from ridgeline_backends.cpu.native import NativeDecoder, supports
from ridgeline_backends.cpu.plain import PlainDecoder
from ridgeline_backends.cpu.program import Program
from ridgeline_backends.models.config import DecoderConfig, decoder_config
from ridgeline_backends.models.decoder import DecoderWeights, read_decoder
from ridgeline_backends.models.lora import Adapter, read_adapter
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.sampling import results, wanted_rows
from ridgeline_backends.torch_threads import TorchThreads

_DRAFT_TOKENS = 16
"""Guesses in one chunk. More rows cost more than the last of them can hope to save."""


class CpuRunner(ModelRunner, LoraRunner):
    """A decoder with its KV memory, on the native kernels where they run it, else in torch."""

    def __init__(
        self, artifact: Artifact, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        plan, spec = artifact.plan, artifact.plan.spec
        self._clock = clock
        self._threads = TorchThreads()
        self._config = config = _read_config(artifact)
        self._max_adapters = spec.max_adapters
        self._max_rank = spec.max_adapter_rank
        with torch.inference_mode(), Weights(artifact.model_dir) as weights:
            self._program = _program(config, read_decoder(config, weights), plan)
        self._limits = RunnerLimits(
            max_model_len=plan.max_model_len,
            max_tokens=spec.max_tokens_per_step,
            max_sequences=spec.max_num_seqs,
            kv_layout=PagedLayout(spec.block_size, plan.kv_blocks),
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
            self._program.attach(adapter)

    def detach_adapter(self, name: str) -> None:
        self._program.detach(name)

    def execute(self, step: Step) -> StepResult:
        begin = self._clock()
        self._threads.adopt()
        with torch.inference_mode():
            found = results(step, self._program.forward(step.chunks, wanted_rows(step)))
        return StepResult(
            tokens=found.tokens,
            scores=found.scores,
            device_time=DeviceTime(seconds=self._clock() - begin),
        )

    def logits(self, step: Step) -> torch.Tensor:
        """Run the step; float32 logits [tokens in the step, vocabulary] of every token in it."""
        self._threads.adopt()
        rows = range(sum(len(chunk.tokens) for chunk in step.chunks))
        with torch.inference_mode():
            return self._program.forward(step.chunks, rows).clone()


def _program(config: DecoderConfig, weights: DecoderWeights, plan: Plan) -> Program:
    spec = plan.spec
    stored = torch.bfloat16 if plan.dtype is Dtype.BF16 else torch.float32
    kernels = library()
    if kernels is not None and supports(config, spec):
        return NativeDecoder(
            kernels,
            config,
            weights,
            dtype=torch.int8 if spec.quantize else stored,
            stored=stored,
            blocks=plan.kv_blocks,
            block_size=spec.block_size,
            max_positions=plan.max_model_len,
            threads=torch.get_num_threads(),
        )
    return PlainDecoder(
        config,
        weights,
        stored=stored,
        blocks=plan.kv_blocks,
        block_size=spec.block_size,
        max_positions=plan.max_model_len,
        max_rank=spec.max_adapter_rank,
    )


def _read_config(artifact: Artifact) -> DecoderConfig:
    generation = artifact.model_dir / "generation_config.json"
    return decoder_config(
        read_json(artifact.model_dir / "config.json"),
        read_json(generation) if generation.is_file() else None,
    )
