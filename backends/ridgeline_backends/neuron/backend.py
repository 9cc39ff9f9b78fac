"""The simulated Neuron backend: decoders on the logical cores of an Inferentia or Trainium."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from ridgeline_backends.base import (
    Artifact,
    Backend,
    DeviceReport,
    LoadSpec,
    ModelRunner,
    Plan,
)
from ridgeline_backends.cpu.memory import machine_memory
from ridgeline_backends.errors import DoesNotFit, UnsupportedModel
from ridgeline_backends.models.config import DECODER_ARCHITECTURES, architecture, decoder_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import weight_files
from ridgeline_backends.neuron.faults import Faults
from ridgeline_backends.neuron.plan import NeuronPlan, decoder_plan
from ridgeline_backends.neuron.step_time import call_time

_NOTE = "Nothing here is a Neuron device: programs run on the processor, their time is predicted."


class NeuronBackend(Backend):
    """Found as "neuron" in the entry-point group `ridgeline.backends`.

    `instance`: the instance type where a spec names none; `settings`: fields of `NeuronConfig` that
    win over a spec.
    """

    name: ClassVar[str] = "neuron"

    def __init__(
        self,
        instance: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._instance = instance
        self._settings = dict(settings or {})

    def probe(self) -> DeviceReport:
        return DeviceReport(
            backend=self.name,
            usable=True,
            device="simulated Inferentia and Trainium",
            memory_bytes=machine_memory(),
            notes=(_NOTE,),
        )

    def plan(self, config: Mapping[str, object], spec: LoadSpec) -> Plan:
        """Raises `InvalidModel`, `UnsupportedModel` for what is not a decoder of a known family,
        `InvalidNeuronConfig`, and `InvalidInput` for an unknown instance type."""
        name = architecture(config)
        if name not in DECODER_ARCHITECTURES:
            raise UnsupportedModel(
                f"The neuron backend does not execute {name}.",
                hint=f"It executes: {', '.join(DECODER_ARCHITECTURES)}.",
            )
        return decoder_plan(
            decoder_config(config),
            name,
            spec,
            settings=self._settings,
            instance=spec.instance or self._instance,
            backend=self.name,
        )

    def compile(self, model_dir: Path, plan: Plan) -> Artifact:
        """The key covers the settings, the config and the names and sizes of the weight files."""
        if not plan.fits:
            raise DoesNotFit(plan.refusals)
        assert isinstance(plan, NeuronPlan), "a plan of another backend"
        digest = sha256(json.dumps(asdict(plan.neuron), sort_keys=True).encode())
        digest.update(f"{plan.placement.instance.name}:{plan.placement.lnc}".encode())
        digest.update(json.dumps(read_json(model_dir / "config.json"), sort_keys=True).encode())
        for path in weight_files(model_dir):
            digest.update(f"{path.name}:{path.stat().st_size}".encode())
        return Artifact(model_dir, plan, digest.hexdigest())

    def load(self, artifact: Artifact) -> ModelRunner:
        # Here, because it imports torch, which planning does without.
        from ridgeline_backends.neuron.runner import NeuronRunner

        plan = artifact.plan
        assert isinstance(plan, NeuronPlan), "a plan of another backend"
        machine, dtype = plan.placement.machine, plan.neuron.torch_dtype
        return NeuronRunner(
            artifact,
            lambda program: call_time(program, machine, dtype),
            faults=Faults.read(os.environ),
        )
