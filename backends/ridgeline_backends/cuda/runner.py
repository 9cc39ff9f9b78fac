"""Executes engine steps of a decoder on one GPU or several. Sampling is done on the first.

What is promised on a GPU: matrix products, norms and sampling give a row the same bits whatever
rows are beside it. Torch's attention kernels promise it as far as `attention` says, and sums over
several GPUs as far as NCCL keeps to one algorithm for them. Where the conformance suite passes on a
device, all of it holds there.
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
    LoraRunner,
    ModelRunner,
    PagedLayout,
    RunnerLimits,
    Step,
    StepResult,
)
from ridgeline_backends.cuda.config import read_config
from ridgeline_backends.cuda.devices import Devices
from ridgeline_backends.cuda.graphs import Recorder
from ridgeline_backends.cuda.processes import Crew
from ridgeline_backends.cuda.program import DeviceDecoder
from ridgeline_backends.models.lora import Adapter, read_adapter
from ridgeline_backends.sampling import results, wanted_rows

_DRAFT_TOKENS = 16
"""Guesses in one chunk. They are rows that a step of decodes is filled up to anyway."""


class CudaRunner(ModelRunner, LoraRunner):
    """`recorder` plays steps of decodes again; None for what suits the device."""

    def __init__(
        self,
        artifact: Artifact,
        devices: Devices,
        *,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        plan, spec = artifact.plan, artifact.plan.spec
        degree = spec.tensor_parallel or 1
        self._clock = clock
        self._config = read_config(artifact.model_dir)
        self._device = devices.device(0)
        self._max_adapters = spec.max_adapters
        self._max_rank = spec.max_adapter_rank
        self._crew: Crew | None = None
        if degree > 1:
            places = [devices.device(rank) for rank in range(degree)]
            self._crew = Crew(artifact, places, devices.collectives)
        self._adopt()
        with torch.inference_mode():
            self._program = DeviceDecoder(
                artifact.model_dir,
                self._config,
                plan,
                self._device,
                group=self._crew.group if self._crew else None,
                recorder=recorder,
            )
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
        with torch.inference_mode():
            self._program.attach(adapter)

    def detach_adapter(self, name: str) -> None:
        self._program.detach(name)

    def execute(self, step: Step) -> StepResult:
        begin = self._clock()
        with torch.inference_mode():
            # Reading the tokens waits for the device, so the clock sees all of the step.
            found = results(step, self._forward(step, wanted_rows(step)))
        return StepResult(
            tokens=found.tokens,
            scores=found.scores,
            device_time=DeviceTime(seconds=self._clock() - begin),
        )

    def logits(self, step: Step) -> torch.Tensor:
        """Run the step; float32 logits [tokens in the step, vocabulary] of every token in it."""
        rows = list(range(sum(len(chunk.tokens) for chunk in step.chunks)))
        with torch.inference_mode():
            return self._forward(step, rows).cpu()

    def close(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _forward(self, step: Step, rows: list[int]) -> torch.Tensor:
        if self._crew is not None:
            self._crew.check()
        self._adopt()
        return self._program.forward(step.chunks, rows)

    def _adopt(self) -> None:
        """The current device is a thread's own, and the engine has a thread of its own."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
