"""Which instance for a decoder? Every type, degree, LNC, batch and weight type is sized and timed.

A setting that cannot be is left out with its reason; the rest are ranked by what a million tokens
cost. Knows no zoo, no service, no torch: a Hugging Face config is all it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import NamedTuple

from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.buckets import power_of_two
from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.configs import context_length, decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices.model import Chip
from ridgeline_backends.neuron.liveness import Bucketed, bucketed_need
from ridgeline_backends.neuron.planning.load import Loaded, Wanted, under_load
from ridgeline_backends.neuron.planning.market import EVERYTHING, Market
from ridgeline_backends.neuron.planning.ranking import (
    Candidate,
    Plan,
    Setting,
    missed,
    ranked,
    settings_of,
)
from ridgeline_backends.neuron.planning.timings import Timings
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.predict import Prediction

BATCHES = (1, 8, 32)
_PHASES = (Phase.TOKEN_GENERATION, Phase.CONTEXT_ENCODING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is wanted. Seconds; `rps`: requests a second. None: no matter."""

    prompt: int = 1024
    answer: int = 256
    ttft_s: float | None = None
    tpot_s: float | None = None
    rps: float | None = None

    @property
    def length(self) -> int:
        """Compiled positions: the next power of two that holds prompt and answer."""
        return power_of_two(self.prompt + self.answer)

    @property
    def tokens_s(self) -> float | None:
        """Tokens a second of all answers."""
        return self.rps * self.answer if self.rps else None

    @property
    def prompt_bucket(self) -> int:
        """The compiled length of prompts."""
        return power_of_two(self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Candidate):
    """`tpot`: with the stalls by the prompts of a full batch. `loaded`: what a simulation at the
    wanted rate found, of the cheapest ones. Costs are of tokens."""

    ttft: Prediction
    tpot: Prediction
    tokens_s: float
    loaded: Loaded | None = None

    @property
    def each_s(self) -> float:
        return self.tokens_s

    @property
    def pace(self) -> Prediction:
        return self.tpot

    @property
    def alone_s(self) -> float:
        return self.ttft.seconds + self.tpot.seconds


def make_plan(
    config: Mapping[str, object],
    target: Target,
    market: Market = EVERYTHING,
    quantized: Sequence[bool] = (False, True),
) -> Plan[Option]:
    """Raises `InvalidModel` for a config without sizes, `InvalidInput` for sequences that the model
    is not made for and instance types that there are not."""
    longest = context_length(config)
    if longest is not None and target.prompt + target.answer > longest:
        raise InvalidInput(
            f"Prompts of {target.prompt} tokens and answers of {target.answer} are above the "
            f"model's context length {longest}.",
            hint="Plan for shorter ones (--prompt, --answer).",
        )
    sweep = _Sweep(decoder_architecture(config), target, longest)
    return ranked(sweep, settings_of(market, BATCHES, quantized), target.rps)


class _Key(NamedTuple):
    """What decides a program."""

    phase: Phase
    tp: int
    batch: int
    quantized: bool
    bucket: int

    @staticmethod
    def of(phase: Phase, setting: Setting, bucket: int) -> _Key:
        """Prompts are encoded one by one."""
        batch = setting.batch if phase is Phase.TOKEN_GENERATION else 1
        return _Key(phase, setting.tp, batch, setting.quantized, bucket)


class _Sweep:
    """Programs are shared by all instance types, which differ in where they run alone."""

    def __init__(self, model: DecoderArchitecture, target: Target, longest: int | None) -> None:
        self._model, self._target = model, target
        # A model may end between two powers of two.
        self._length = min(target.length, longest or target.length)
        self._programs: dict[_Key, Program] = {}
        self._bytes: dict[tuple[int, int, bool, Chip], int] = {}
        self._timings = Timings()

    def core_bytes(self, setting: Setting) -> int:
        chip = setting.instance.chip
        key = setting.tp, setting.batch, setting.quantized, chip
        if key not in self._bytes:
            phases = [self._compiled(phase, setting) for phase in _PHASES]
            self._bytes[key] = bucketed_need(phases, chip).total
        return self._bytes[key]

    def check(self, setting: Setting) -> None:
        for phase in _PHASES:
            self._timings.check(
                self._key(phase, setting), setting, partial(self._program, phase, setting)
            )

    def option(self, setting: Setting) -> Option:
        target = self._target
        step = self._predicted(Phase.TOKEN_GENERATION, setting)
        first = self._predicted(Phase.CONTEXT_ENCODING, setting)
        # While one sequence answers, every other slot of its batch is filled once.
        factor = 1 + first.seconds * (setting.batch - 1) / target.answer / step.seconds
        tpot = replace(
            step,
            seconds=step.seconds * factor,
            low=step.low * factor,
            high=step.high * factor,
        )
        rate = setting.copies * setting.batch / (first.seconds + tpot.seconds * target.answer)
        count = max(1, ceil(target.rps / rate)) if target.rps else 1
        tokens = rate * target.answer
        return Option(
            setting=setting,
            core_bytes=self.core_bytes(setting),
            ttft=first,
            tpot=tpot,
            tokens_s=tokens,
            instances=count,
            wanted=target.tokens_s,
            misses=(
                *missed("TTFT", first.seconds, target.ttft_s),
                *missed("time per token", tpot.seconds, target.tpot_s),
            ),
        )

    def under_load(self, option: Option, rps: float) -> Option:
        setting, target = option.setting, self._target
        found = under_load(
            Wanted(
                rps=rps,
                prompt=target.prompt,
                answer=target.answer,
                ttft_s=target.ttft_s,
                tpot_s=target.tpot_s,
            ),
            prefill_s=option.ttft.seconds,
            step_s=self._predicted(Phase.TOKEN_GENERATION, setting).seconds,
            batch=setting.batch,
            copies=setting.copies,
            at_least=option.instances,
        )
        if found is None:
            return replace(option, misses=(f"at {rps:g} requests a second it misses its targets",))
        return replace(option, instances=found.instances, loaded=found)

    def _compiled(self, phase: Phase, setting: Setting) -> Bucketed:
        """What an endpoint of it compiles: every bucket, prompts as long as a sequence."""
        buckets = self._config(setting, 1).generation_buckets
        shortest, longest = (self._bucket(phase, setting, b) for b in (buckets[0], buckets[-1]))
        return Bucketed(shortest, longest, buckets)

    def _predicted(self, phase: Phase, setting: Setting) -> Prediction:
        key = self._key(phase, setting)
        return self._timings.of(key, setting, lambda: self._program(phase, setting))

    def _program(self, phase: Phase, setting: Setting) -> Program:
        """The one that is timed."""
        return self._bucket(phase, setting, self._key(phase, setting).bucket)

    def _key(self, phase: Phase, setting: Setting) -> _Key:
        prompt = min(self._target.prompt_bucket, self._length)
        return _Key.of(phase, setting, self._length if phase is Phase.TOKEN_GENERATION else prompt)

    def _bucket(self, phase: Phase, setting: Setting, bucket: int) -> Program:
        key = _Key.of(phase, setting, bucket)
        if key not in self._programs:
            self._programs[key] = decoder_program(
                self._model,
                self._config(setting, key.batch),
                phase=phase,
                bucket=bucket,
                rules=NXDI,
                batch=key.batch,
            )
        return self._programs[key]

    def _config(self, setting: Setting, batch: int) -> NeuronConfig:
        return NeuronConfig(
            tp_degree=setting.tp,
            batch_size=batch,
            seq_len=self._length,
            is_continuous_batching=True,
            on_device_sampling=True,
            output_logits=False,
            quantized=setting.quantized,
            fused_qkv=True,
        )
