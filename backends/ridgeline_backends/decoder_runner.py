"""Executes engine steps of a decoder, on whatever device computes them; sampling is done here.

A device brings a `Program`, and says what a thread must do before it uses the device.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ridgeline_backends.base import (
    AnyAdapter,
    Chunk,
    LoraRunner,
    ModelRunner,
    PagedLayout,
    Plan,
    RunnerLimits,
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.lora import Adapter, read_adapter
from ridgeline_backends.sampling import results, wanted_rows


class Program(Protocol):
    """A decoder with its KV memory, however it computes."""

    def forward(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        """Write the KV of every token; float32 logits [len(wanted), vocabulary] of these rows of
        the flat step, in rising order. The next call may use the tensor's memory again."""

    def attach(self, adapter: Adapter) -> None:
        """Make a LoRA adapter usable by the chunks that name it."""

    def detach(self, name: str) -> None: ...


class DecoderRunner(ModelRunner, LoraRunner):
    """`draft_tokens`: guesses in one chunk, beyond which a row costs more than it can save."""

    def __init__(
        self,
        config: DecoderConfig,
        program: Program,
        plan: Plan,
        *,
        draft_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        spec = plan.spec
        self._config = config
        self._program = program
        self._clock = clock
        self._max_adapters = spec.max_adapters
        self._max_rank = spec.max_adapter_rank
        self._limits = RunnerLimits(
            max_model_len=plan.max_model_len,
            max_tokens=spec.max_tokens_per_step,
            max_sequences=spec.max_num_seqs,
            kv_layout=PagedLayout(spec.block_size, plan.kv_blocks),
            draft_tokens=draft_tokens,
        )

    @abstractmethod
    def _adopt(self) -> None:
        """Ready the device for the calling thread: the engine has one of its own."""

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
        self._adopt()
        with torch.inference_mode():
            self._program.attach(adapter)

    def detach_adapter(self, name: str) -> None:
        self._program.detach(name)

    def execute(self, step: Step) -> StepResult:
        begin = self._clock()
        self._adopt()
        with torch.inference_mode():
            # Reading the tokens waits for the device, so the clock sees all of the step.
            found = results(step, self._program.forward(step.chunks, wanted_rows(step)))
        return StepResult(
            tokens=found.tokens,
            scores=found.scores,
            device_time=DeviceTime(seconds=self._clock() - begin),
        )

    def logits(self, step: Step) -> Tensor:
        """Run the step; float32 logits [tokens in the step, vocabulary] of every token in it."""
        self._adopt()
        rows = range(sum(len(chunk.tokens) for chunk in step.chunks))
        with torch.inference_mode():
            return self._program.forward(step.chunks, rows).to("cpu", copy=True)
