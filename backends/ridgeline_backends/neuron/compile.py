"""Compiling for a placement: a module per phase and bucket, each remembered in a cache.

A module's key is the hash of its graph with that of its settings, under the compiler's version, so
that whatever would give the same module is not compiled again, by anybody who shares the cache.
Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.artifact import Module, make_artifact, module_key
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.configs import context_length
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.compile_cache import CompileCache
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.encoder_plan import NOT_QUANTISED, encoder_programs
from ridgeline_backends.neuron.instruction_count import too_many
from ridgeline_backends.neuron.liveness import CoreNeed, core_need
from ridgeline_backends.neuron.placement import Placement
from ridgeline_backends.neuron.plan import out_of_memory
from ridgeline_backends.neuron.program import ElementType, Program

_AT_ONCE = 8
"""Buckets that are fetched or compiled at the same time."""


@dataclass(frozen=True, slots=True)
class BucketDone:
    """One bucket more is there. `left_s`: how long the others will take, if they take as long."""

    module: Module
    fetched: bool
    done: int
    total: int
    left_s: float


Progress = Callable[[BucketDone], None]


def silent(_: BucketDone) -> None:
    """The progress of whoever does not look."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """`cached`: how many of the modules were there already, in `place`."""

    modules: tuple[Module, ...]
    cached: int
    need: CoreNeed
    place: str

    @property
    def words(self) -> str:
        """As "2 of 6 buckets, the others from the cache ..."."""
        total, made = len(self.modules), len(self.modules) - self.cached
        if not self.place:
            return f"{made} of {total} buckets, without a cache"
        others = {0: "", total: ", all from cache"}.get(self.cached, ", the others from cache")
        return f"{made} of {total} buckets{others} ({self.place})"


def compile_decoder(
    config: Mapping[str, object],
    neuron: NeuronConfig,
    placement: Placement,
    cache: CompileCache | None,
    *,
    progress: Progress = silent,
) -> Compiled:
    """Compile every bucket. Raises `DoesNotFit` with a reason for each thing that is in the way,
    `TooManyInstructions`, `InvalidModel` and `UnsupportedModel`."""
    _check(placement)
    _check_length(neuron, context_length(config))
    buckets = [(Phase.CONTEXT_ENCODING, size) for size in neuron.context_buckets]
    buckets += [(Phase.TOKEN_GENERATION, size) for size in neuron.generation_buckets]
    programs = [build_decoder(config, neuron, phase=phase, bucket=size) for phase, size in buckets]
    return _compiled(programs, neuron, placement, cache, progress)


def compile_encoder(
    config: EncoderConfig,
    neuron: NeuronConfig,
    placement: Placement,
    cache: CompileCache | None,
    *,
    pooling: Pooling,
    progress: Progress = silent,
) -> Compiled:
    """Compile every bucket of a text encoder, for one text and for a batch. Raises as
    `compile_decoder`."""
    _check(placement)
    if neuron.quantized:
        raise DoesNotFit([NOT_QUANTISED])
    _check_length(neuron, config.context_length)
    programs = encoder_programs(config, neuron, pooling)
    return _compiled(programs, neuron, placement, cache, progress)


def _compiled(
    programs: Sequence[Program],
    neuron: NeuronConfig,
    placement: Placement,
    cache: CompileCache | None,
    progress: Progress,
) -> Compiled:
    return compile_programs(
        programs,
        _fitting(programs, placement),
        placement,
        cache,
        settings=repr(neuron),
        dtype=neuron.torch_dtype,
        progress=progress,
    )


def compile_program(
    program: Program,
    placement: Placement,
    cache: CompileCache | None,
    *,
    progress: Progress = silent,
) -> Compiled:
    """Compile a program of one core, as `export` makes them. Raises as `compile_decoder`."""
    need = _fitting([program], placement)
    return compile_programs([program], need, placement, cache, progress=progress)


def compile_programs(
    programs: Sequence[Program],
    need: CoreNeed,
    placement: Placement,
    cache: CompileCache | None,
    *,
    settings: str = "",
    dtype: ElementType = ElementType.BF16,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Compiled:
    """A module for each program, fetched or made, several at a time; in the order of `programs`.
    Raises what the cache raises where it cannot be reached."""

    def one(program: Program) -> tuple[Module, bool]:
        key = module_key(program, settings, placement)
        found = None if cache is None else cache.get(key)
        if found is not None:
            return found, True
        made, artifact = make_artifact(key, program, placement, dtype)
        if cache is not None:
            cache.put(key, artifact)
        return made, False

    begun, total, fetched = clock(), len(programs), 0
    with ThreadPoolExecutor(min(_AT_ONCE, total), thread_name_prefix="compile") as pool:
        futures = [pool.submit(one, program) for program in programs]
        for done, future in enumerate(as_completed(futures), start=1):
            module, known = future.result()
            fetched += known
            left_s = (clock() - begun) / done * (total - done)
            progress(BucketDone(module, known, done, total, left_s))
        modules = tuple(future.result()[0] for future in futures)
    return Compiled(modules, fetched, need, "" if cache is None else cache.place)


def _check(placement: Placement) -> None:
    if placement.refusals:
        raise DoesNotFit(placement.refusals)


def _check_length(neuron: NeuronConfig, longest: int | None) -> None:
    """`longest`: the model's context length, None where nothing is known of it."""
    if longest is not None and neuron.seq_len > longest:
        raise DoesNotFit(
            [f"seq_len {neuron.seq_len} is above the model's context length {longest}."]
        )


def _fitting(programs: Sequence[Program], placement: Placement) -> CoreNeed:
    """What a core needs, which is no more than it has. Raises `TooManyInstructions` too."""
    need = core_need(programs, placement.instance.chip)
    if need.total > placement.core_memory_bytes:
        raise DoesNotFit([out_of_memory(need, placement)])
    for program in programs:
        if refusal := too_many(program, placement.instance.chip, placement.lnc):
            raise refusal
    return need
