"""Compiling a decoder for a placement: a module per phase and bucket, each remembered.

A module's key is the hash of its graph with that of its settings, under the compiler's version, so
that whatever would give the same module is not compiled again, by anybody who shares the folder.
Imports no torch.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.liveness import CoreNeed, core_need
from ridgeline_backends.neuron.placement import Placement
from ridgeline_backends.neuron.plan import out_of_memory
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.predict import predict

COMPILER = "ridgelinecc-1"
"""Changes with whatever changes a module that is made of an unchanged graph."""

CACHE_VARIABLE = "NEURON_COMPILE_CACHE_URL"
_FILE = "module.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One compiled program: what it does, and the seconds of a call with their interval."""

    key: str
    phase: str
    bucket: int
    batch: int
    operations: int
    flops: int
    bytes: int
    seconds: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """`cached`: how many of the modules were there already."""

    modules: tuple[Module, ...]
    cached: int
    need: CoreNeed


class CompileCache:
    """Modules in a folder, as the Neuron cache lays them out. Any number may write at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / COMPILER

    def get(self, key: str) -> Module | None:
        """A module that is there in whole; None for any other."""
        try:
            return Module(**json.loads((self._folder / key / _FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, module: Module) -> None:
        """Readers see all of it or nothing."""
        folder = self._folder / module.key
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(module), file)
        Path(name).replace(folder / _FILE)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where modules are kept. Raises `InvalidInput` for a place that is no folder."""
    given = environment.get(CACHE_VARIABLE)
    if given is None:
        return Path.home() / ".cache" / "ridgeline" / "neuron-compile-cache"
    if "://" in given and not given.startswith("file://"):
        raise InvalidInput(
            f"{CACHE_VARIABLE}={given} is no folder.", hint="Give a path on this machine."
        )
    return Path(given.removeprefix("file://"))


def compile_decoder(
    config: Mapping[str, object],
    neuron: NeuronConfig,
    placement: Placement,
    cache: CompileCache,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compiled:
    """Compile every bucket. Raises `DoesNotFit` with a reason for each thing that is in the way,
    `InvalidModel` and `UnsupportedModel`."""
    refusals = list(placement.refusals)
    if refusals:
        raise DoesNotFit(refusals)
    buckets = [(Phase.CONTEXT_ENCODING, size) for size in neuron.context_buckets]
    buckets += [(Phase.TOKEN_GENERATION, size) for size in neuron.generation_buckets]
    programs = [build_decoder(config, neuron, phase=phase, bucket=size) for phase, size in buckets]
    need = core_need(programs)
    if need.total > placement.core_memory_bytes:
        raise DoesNotFit([out_of_memory(need, placement)])
    return _compiled(programs, need, placement, cache, repr(neuron), progress)


def compile_program(
    program: Program,
    placement: Placement,
    cache: CompileCache,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compiled:
    """Compile a program of one core, as `export` makes them. Raises `DoesNotFit`."""
    need = core_need([program])
    if need.total > placement.core_memory_bytes:
        raise DoesNotFit([out_of_memory(need, placement)])
    return _compiled([program], need, placement, cache, "", progress)


def _compiled(
    programs: Sequence[Program],
    need: CoreNeed,
    placement: Placement,
    cache: CompileCache,
    settings: str,
    progress: Callable[[int, int], None],
) -> Compiled:
    modules: list[Module] = []
    cached = 0
    for done, program in enumerate(programs, start=1):
        key = module_key(program, settings, placement)
        found = cache.get(key)
        cached += found is not None
        if found is None:
            found = _module(key, program, placement)
            cache.put(found)
        modules.append(found)
        progress(done, len(programs))
    return Compiled(tuple(modules), cached, need)


def module_key(program: Program, settings: str, placement: Placement) -> str:
    """MODULE_ and the hash of the graph, + the hash of the flags."""
    graph = sha256(repr(program.sections).encode()).hexdigest()[:20]
    flags = f"--target {placement.instance.chip.name} --lnc {placement.lnc} {settings}"
    return f"MODULE_{graph}+{sha256(flags.encode()).hexdigest()[:8]}"


def _module(key: str, program: Program, placement: Placement) -> Module:
    taken = predict(program, placement.machine)
    return Module(
        key=key,
        phase=program.phase,
        bucket=program.bucket,
        batch=program.batch,
        operations=sum(times for _, times in program.operations()),
        flops=program.flops,
        bytes=program.bytes,
        seconds=taken.seconds,
        low=taken.low,
        high=taken.high,
        label=taken.label,
    )
