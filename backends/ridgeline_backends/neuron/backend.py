"""The simulated Neuron backend: decoders and text encoders on the logical cores of an Inferentia or
Trainium."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from ridgeline.errors import RidgelineError
from ridgeline_backends.base import Artifact, Backend, DeviceReport, LoadSpec, ModelRunner, Plan
from ridgeline_backends.cpu.memory import machine_memory
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner
from ridgeline_backends.errors import DoesNotFit, UnsupportedModel
from ridgeline_backends.models.config import DECODER_ARCHITECTURES, architecture, decoder_config
from ridgeline_backends.models.encoder_config import ENCODER_ARCHITECTURES, encoder_config
from ridgeline_backends.models.encoder_families import RERANK_FAMILIES
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.sentence_files import read_pooling
from ridgeline_backends.models.weights import weight_files
from ridgeline_backends.neuron.artifact import Module
from ridgeline_backends.neuron.compile import Compiled, compile_programs
from ridgeline_backends.neuron.compile_cache import CACHE_VARIABLE, CompileCache, open_cache
from ridgeline_backends.neuron.encoder_plan import encoder_plan, encoder_programs
from ridgeline_backends.neuron.faults import Faults
from ridgeline_backends.neuron.plan import NeuronPlan, compiled_programs, decoder_plan
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.step_time import call_time

log = logging.getLogger(__name__)

_NOTE = "Nothing here is a Neuron device: programs run on the processor, their time is predicted."


@dataclass(frozen=True, slots=True)
class NeuronArtifact(Artifact):
    """A model with the modules that were compiled for its plan."""

    modules: tuple[Module, ...] = ()


class NeuronBackend(Backend):
    """Found as "neuron" in the entry-point group `ridgeline.backends`.

    `instance`: the instance type where a spec names none; `settings`: fields of `NeuronConfig` that
    win over a spec. Modules are kept where `NEURON_COMPILE_CACHE_URL` says, nowhere without it.
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
        """Raises `InvalidModel`, `UnsupportedModel` for what is not of a known family,
        `InvalidNeuronConfig`, and `InvalidInput` for an unknown instance type."""
        name = architecture(config)
        wanted = spec.instance or self._instance
        if name in ENCODER_ARCHITECTURES:
            return encoder_plan(
                encoder_config(config, name),
                name,
                spec,
                settings=self._settings,
                instance=wanted,
                backend=self.name,
            )
        if name not in DECODER_ARCHITECTURES:
            raise UnsupportedModel(
                f"The neuron backend does not execute {name}.",
                hint=f"It executes: {', '.join((*DECODER_ARCHITECTURES, *ENCODER_ARCHITECTURES))}.",
            )
        return decoder_plan(
            decoder_config(config),
            name,
            spec,
            settings=self._settings,
            instance=wanted,
            backend=self.name,
        )

    def compile(self, model_dir: Path, plan: Plan) -> Artifact:
        """A module for each phase and bucket, from the cache where they are there. A cache that
        cannot be reached is done without. The key covers the settings, the config and the names
        and sizes of the weight files."""
        if not plan.fits:
            raise DoesNotFit(plan.refusals, hint=plan.hint)
        assert isinstance(plan, NeuronPlan), "a plan of another backend"
        digest = sha256(json.dumps(asdict(plan.neuron), sort_keys=True).encode())
        digest.update(f"{plan.placement.instance.name}:{plan.placement.lnc}".encode())
        digest.update(json.dumps(read_json(model_dir / "config.json"), sort_keys=True).encode())
        for path in weight_files(model_dir):
            digest.update(f"{path.name}:{path.stat().st_size}".encode())
        compiled = _compiled(model_dir, plan)
        return NeuronArtifact(model_dir, plan, digest.hexdigest(), compiled.words, compiled.modules)

    def load(self, artifact: Artifact) -> ModelRunner | EmbeddingRunner | RerankRunner:
        # Here, because they import torch, which planning does without.
        from ridgeline_backends.neuron.encoder_runner import (
            NeuronEmbeddingRunner,
            NeuronRerankRunner,
        )
        from ridgeline_backends.neuron.runner import NeuronRunner

        plan = artifact.plan
        assert isinstance(plan, NeuronPlan), "a plan of another backend"
        assert isinstance(artifact, NeuronArtifact), "an artifact of another backend"
        machine, dtype = plan.placement.machine, plan.neuron.torch_dtype
        known = {(one.phase, one.bucket, one.batch): one.time for one in artifact.modules}

        def predict(program: Program) -> DeviceTime:
            found = known.get((program.phase, program.bucket, program.batch))
            return found or call_time(program, machine, dtype)

        faults = Faults.read(os.environ)
        if plan.architecture in RERANK_FAMILIES:
            return NeuronRerankRunner(artifact, predict, faults=faults)
        if plan.architecture in ENCODER_ARCHITECTURES:
            return NeuronEmbeddingRunner(artifact, predict, faults=faults)
        return NeuronRunner(artifact, predict, faults=faults)


def _compiled(model_dir: Path, plan: NeuronPlan) -> Compiled:
    config = read_json(model_dir / "config.json")
    if plan.architecture in ENCODER_ARCHITECTURES:
        model = encoder_config(config, plan.architecture)
        programs = encoder_programs(model, plan.neuron, read_pooling(model_dir))
    else:
        programs = compiled_programs(decoder_config(config), plan.neuron)

    def compiled(cache: CompileCache | None) -> Compiled:
        return compile_programs(
            programs,
            plan.need,
            plan.placement,
            cache,
            settings=repr(plan.neuron),
            dtype=plan.neuron.torch_dtype,
        )

    if not os.environ.get(CACHE_VARIABLE):
        return compiled(None)
    try:
        return compiled(open_cache())
    except RidgelineError as error:
        log.warning("The compile cache cannot be used: %s", error.message)
        return compiled(None)
