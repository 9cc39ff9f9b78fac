"""A decoder on the CPU: one flat row of tokens through the layers.

Prefill chunks and decodes are not told apart outside attention.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ridgeline_backends.base import Artifact, Dtype, Plan
from ridgeline_backends.cpu.kernels.library import library
from ridgeline_backends.cpu.native import NativeDecoder, supports
from ridgeline_backends.cpu.plain import PlainDecoder
from ridgeline_backends.decoder_runner import DecoderRunner, Program
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import DecoderWeights, read_decoder
from ridgeline_backends.models.stored_config import read_config
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.torch_threads import TorchThreads

_DRAFT_TOKENS = 16
"""Guesses in one chunk. More rows cost more than the last of them can hope to save."""


class CpuRunner(DecoderRunner):
    """A decoder with its KV memory, on the native kernels where they run it, else in torch."""

    def __init__(
        self, artifact: Artifact, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        plan, config = artifact.plan, read_config(artifact.model_dir)
        self._threads = TorchThreads()
        with torch.inference_mode(), Weights(artifact.model_dir) as weights:
            program = _program(config, read_decoder(config, weights), plan)
        super().__init__(config, program, plan, draft_tokens=_DRAFT_TOKENS, clock=clock)

    def _adopt(self) -> None:
        self._threads.adopt()


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
