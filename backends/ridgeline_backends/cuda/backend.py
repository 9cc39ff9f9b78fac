"""The CUDA backend: decoders of this package on NVIDIA GPUs, in bf16 or fp32.

What it does not run (encoders, architectures without code of ours) runs on the processor beside
it, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from ridgeline_backends.base import (
    Artifact,
    Backend,
    DeviceReport,
    Dtype,
    LoadSpec,
    ModelRunner,
    Plan,
)
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cuda.devices import CudaDevices, Devices
from ridgeline_backends.cuda.plan import decoder_plan
from ridgeline_backends.cuda.runner import CudaRunner
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner
from ridgeline_backends.errors import BackendUnusable, UnsupportedModel
from ridgeline_backends.models.config import DECODER_ARCHITECTURES, architecture, decoder_config

_ELSEWHERE = "The cuda backend runs no {}, so this model runs on the processor."


class CudaBackend(Backend):
    """Found as "cuda" in the entry-point group `ridgeline.backends`."""

    name: ClassVar[str] = "cuda"

    def __init__(self, devices: Devices | None = None) -> None:
        self._devices = CudaDevices() if devices is None else devices
        self._processor = CpuBackend()

    def probe(self) -> DeviceReport:
        found = self._devices.find()
        if not found.gpus:
            return DeviceReport(backend=self.name, usable=False, reason=found.reason)
        names = [
            f"{gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]})"
            for gpu in found.gpus
        ]
        notes = (f"driver {found.driver}",) if found.driver else ()
        return DeviceReport(
            backend=self.name,
            usable=True,
            device=", ".join(names),
            memory_bytes=sum(gpu.memory_bytes for gpu in found.gpus),
            threads=torch.get_num_threads(),
            notes=notes,
        )

    def plan(self, config: Mapping[str, object], spec: LoadSpec) -> Plan:
        """Raises `BackendUnusable` where there is no GPU, `InvalidModel` as any backend."""
        found = self._devices.find()
        if not found.gpus:
            raise BackendUnusable(self.name, found.reason, hint="Use the cpu backend.")
        try:
            name = architecture(config)
            if name not in DECODER_ARCHITECTURES:
                return self._elsewhere(config, spec, name)
            model = decoder_config(config)
        except UnsupportedModel as refused:
            return self._elsewhere(config, spec, f"such models: {refused.message.rstrip('.')}")
        return decoder_plan(model, name, spec, _dtype(spec), found.gpus)

    def compile(self, model_dir: Path, plan: Plan) -> Artifact:
        """Nothing is compiled, as for the processor: the artifact is the model directory."""
        return self._processor.compile(model_dir, plan)

    def load(self, artifact: Artifact) -> ModelRunner | EmbeddingRunner | RerankRunner:
        if artifact.plan.backend != self.name:
            return self._processor.load(artifact)
        return CudaRunner(artifact, self._devices)

    def _elsewhere(self, config: Mapping[str, object], spec: LoadSpec, what: str) -> Plan:
        plan = self._processor.plan(config, spec)
        return replace(plan, notes=(_ELSEWHERE.format(what), *plan.notes))


def _dtype(spec: LoadSpec) -> Dtype:
    try:
        return Dtype(spec.dtype)
    except ValueError as error:
        raise UnsupportedModel(
            f"dtype {spec.dtype!r} is not supported by the cuda backend.", hint="Use bf16 or fp32."
        ) from error
