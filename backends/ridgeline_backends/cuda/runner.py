"""Executes engine steps of a decoder on one GPU or several. Sampling is done on the first.

What is promised on a GPU: matrix products, norms and sampling give a row the same bits whatever
rows are beside it. Torch's attention kernels promise it as far as `attention` says, and sums over
several GPUs as far as NCCL keeps to one algorithm for them. Where the conformance suite passes on a
device, all of it holds there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ridgeline_backends.base import Artifact
from ridgeline_backends.cuda.devices import Devices
from ridgeline_backends.cuda.graphs import Recorder
from ridgeline_backends.cuda.processes import Crew
from ridgeline_backends.cuda.program import DeviceDecoder
from ridgeline_backends.decoder_runner import DecoderRunner
from ridgeline_backends.models.stored_config import read_config

_DRAFT_TOKENS = 16
"""Guesses in one chunk. They are rows that a step of decodes is filled up to anyway."""


class CudaRunner(DecoderRunner):
    """`recorder` plays steps of decodes again; None for what suits the device."""

    def __init__(
        self,
        artifact: Artifact,
        devices: Devices,
        *,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        plan, config = artifact.plan, read_config(artifact.model_dir)
        degree = plan.spec.tensor_parallel or 1
        self._device = devices.device(0)
        self._crew: Crew | None = None
        if degree > 1:
            places = [devices.device(rank) for rank in range(degree)]
            self._crew = Crew(artifact, places, devices.collectives)
        self._adopt()
        with torch.inference_mode():
            program = DeviceDecoder(
                artifact.model_dir,
                config,
                plan,
                self._device,
                group=self._crew.group if self._crew else None,
                recorder=recorder,
            )
        super().__init__(config, program, plan, draft_tokens=_DRAFT_TOKENS, clock=clock)

    def close(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _adopt(self) -> None:
        """Before anything else: a process of the crew that ended is an error, not a wait. And the
        current device is a thread's own."""
        if self._crew is not None:
            self._crew.check()
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
