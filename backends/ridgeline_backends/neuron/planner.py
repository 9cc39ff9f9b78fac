"""Which instance for a model? Every type, degree, LNC, batch and weight type is sized and timed.

A setting that cannot be is left out with its reason; the rest are ranked by what a million tokens
cost. Knows no zoo, no service, no torch: a Hugging Face config is all it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices import Instance, instances
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.planning.load import Loaded, Wanted, under_load
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import Prediction, predict

BATCHES = (1, 8, 32)
_SIMULATED = 8
"""So many of the cheapest options are tried under the wanted rate."""

_GIB = 1 << 30


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
        return _power(self.prompt + self.answer)

    @property
    def prompt_bucket(self) -> int:
        """The compiled length of prompts."""
        return _power(self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run the model."""

    instance: Instance
    lnc: int
    tp: int
    batch: int
    quantized: bool

    def __str__(self) -> str:
        weights = "8-bit" if self.quantized else "bf16"
        return f"{self.instance.name} LNC {self.lnc} TP {self.tp} batch {self.batch} {weights}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A setting that fits. `tpot`: with the stalls by the prompts of a full batch. `instances`:
    how many are needed for the wanted rate. `loaded`: what a simulation at that rate found, of the
    cheapest ones. Costs are None where no price is listed."""

    setting: Setting
    core_bytes: int
    ttft: Prediction
    tpot: Prediction
    tokens_s: float
    instances: int
    usd_per_million: float | None
    misses: tuple[str, ...]
    loaded: Loaded | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`options` meet the targets, cheapest first; `near` fit but miss one; `left_out`: why the
    others of an instance type cannot be."""

    options: tuple[Option, ...]
    near: tuple[Option, ...]
    left_out: Mapping[str, str]

    @property
    def front(self) -> tuple[Option, ...]:
        """Of the options with a price, those than which none is both cheaper and faster per token:
        the cheapest first, the fastest last."""
        found: list[Option] = []
        for one in self.options:
            if one.usd_per_million is None:
                continue
            if not found or one.tpot.seconds < found[-1].tpot.seconds:
                found.append(one)
        return tuple(found)


def make_plan(config: Mapping[str, object], target: Target) -> Plan:
    """Raises `InvalidModel` for a config without sizes."""
    sweep = _Sweep(decoder_architecture(config), target)
    found: list[Option] = []
    left_out: dict[str, str] = {}
    for setting in _settings():
        reason = sweep.refusal(setting)
        if reason is None:
            found.append(sweep.option(setting))
        else:
            left_out.setdefault(setting.instance.name, reason)
    for one in found:
        left_out.pop(one.setting.instance.name, None)
    ranked = sorted(found, key=_rank)
    options = [one for one in ranked if not one.misses]
    near = [one for one in ranked if one.misses]
    if target.rps is not None:
        tried = [sweep.under_load(one, target.rps) for one in options[:_SIMULATED]]
        near = [*(one for one in tried if one.misses), *near]
        tried = [one for one in tried if not one.misses]
        options = sorted([*tried, *options[_SIMULATED:]], key=_rank)
    return Plan(options=tuple(options), near=tuple(near), left_out=left_out)


def _settings() -> Iterable[Setting]:
    """All, the largest degree of a type first: what it cannot hold the others cannot."""
    for instance in instances().values():
        if instance.chip.neuroncore == "v1":
            continue
        for lnc in reversed(instance.chip.lnc):
            for tp in reversed(instance.tensor_parallel):
                for batch in BATCHES:
                    for quantized in (False, True):
                        yield Setting(
                            instance=instance, lnc=lnc, tp=tp, batch=batch, quantized=quantized
                        )


class _Sweep:
    """Sizes and times settings of one model. Programs are shared by all instance types, which
    differ in where they run alone."""

    def __init__(self, model: DecoderArchitecture, target: Target) -> None:
        self._model, self._target = model, target
        self._programs: dict[tuple[Phase, int, int, bool], Program] = {}
        self._bytes: dict[tuple[int, int, bool], int] = {}
        self._machines: dict[tuple[str, int], Machine] = {}
        self._predictions: dict[tuple[object, ...], Prediction] = {}

    def refusal(self, setting: Setting) -> str | None:
        """Why a setting cannot be; None if it can."""
        cores = setting.instance.cores(setting.lnc)
        if setting.tp > cores:
            return f"TP {setting.tp} asks for more than its {cores} cores"
        try:
            need = self._core_bytes(setting)
        except BackendError as error:
            return error.message
        limit = setting.instance.core_memory_bytes(setting.lnc)
        if need <= limit:
            return None
        return (
            f"does not fit: {need / _GIB:.1f} GiB a core of {limit / _GIB:.0f} at "
            f"TP {setting.tp}, batch {setting.batch}"
        )

    def option(self, setting: Setting) -> Option:
        """What a setting that fits takes and costs."""
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
        groups = setting.instance.cores(setting.lnc) // setting.tp
        rate = groups * setting.batch / (first.seconds + tpot.seconds * target.answer)
        count = max(1, ceil(target.rps / rate)) if target.rps else 1
        price = setting.instance.price_usd_h
        tokens = rate * target.answer
        return Option(
            setting=setting,
            core_bytes=self._core_bytes(setting),
            ttft=first,
            tpot=tpot,
            tokens_s=tokens,
            instances=count,
            usd_per_million=None if price is None else _cost(price, tokens, count, target),
            misses=_misses(first, tpot, target),
        )

    def under_load(self, option: Option, rps: float) -> Option:
        """The option at the wanted rate, simulated."""
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
            groups=setting.instance.cores(setting.lnc) // setting.tp,
            at_least=option.instances,
        )
        if found is None:
            return replace(option, misses=(f"at {rps:g} requests a second it misses its targets",))
        price = setting.instance.price_usd_h
        return replace(
            option,
            instances=found.instances,
            loaded=found,
            usd_per_million=None
            if price is None
            else _cost(price, option.tokens_s, found.instances, target),
        )

    def _predicted(self, phase: Phase, setting: Setting) -> Prediction:
        """Timed once for all types on which a group of cores lies alike."""
        machine = self._machine(setting)
        devices = machine.devices(setting.tp, 1)
        batch = setting.batch if phase is Phase.TOKEN_GENERATION else 1
        key = (
            (phase, setting.tp, batch, setting.quantized),
            (machine.chip, machine.lnc, devices, machine.hops(setting.tp, 1)),
            machine.instance.link_gb_s if devices > 1 else None,
        )
        if key not in self._predictions:
            self._predictions[key] = predict(self._program(phase, setting), machine)
        return self._predictions[key]

    def _machine(self, setting: Setting) -> Machine:
        key = setting.instance.name, setting.lnc
        if key not in self._machines:
            self._machines[key] = Machine(setting.instance, setting.lnc)
        return self._machines[key]

    def _core_bytes(self, setting: Setting) -> int:
        key = setting.tp, setting.batch, setting.quantized
        if key not in self._bytes:
            phases = (Phase.TOKEN_GENERATION, Phase.CONTEXT_ENCODING)
            programs = [self._program(phase, setting) for phase in phases]
            self._bytes[key] = core_need(programs).total
        return self._bytes[key]

    def _program(self, phase: Phase, setting: Setting) -> Program:
        decoding = phase is Phase.TOKEN_GENERATION
        batch = setting.batch if decoding else 1
        key = phase, setting.tp, batch, setting.quantized
        if key not in self._programs:
            self._programs[key] = self._built(phase, setting, batch)
        return self._programs[key]

    def _built(self, phase: Phase, setting: Setting, batch: int) -> Program:
        config = NeuronConfig(
            tp_degree=setting.tp,
            batch_size=batch,
            seq_len=self._target.length,
            is_continuous_batching=True,
            on_device_sampling=True,
            output_logits=False,
            quantized=setting.quantized,
            fused_qkv=True,
        )
        decoding = phase is Phase.TOKEN_GENERATION
        bucket = self._target.length if decoding else self._target.prompt_bucket
        return decoder_program(
            self._model, config, phase=phase, bucket=bucket, rules=NXDI, batch=batch
        )


def _cost(price: float, tokens_s: float, count: int, target: Target) -> float:
    """What a million tokens cost at the wanted rate, idle time paid for too."""
    used = target.rps * target.answer if target.rps else tokens_s * count
    return price * count / 3600 / used * 1e6


def _misses(ttft: Prediction, tpot: Prediction, target: Target) -> tuple[str, ...]:
    found = []
    for name, value, limit in (
        ("TTFT", ttft.seconds, target.ttft_s),
        ("time per token", tpot.seconds, target.tpot_s),
    ):
        if limit is not None and value > limit:
            found.append(f"{name} {value * 1e3:.0f} ms is above {limit * 1e3:.0f} ms")
    return tuple(found)


def _rank(one: Option) -> tuple[bool, float, int, str]:
    """The cheapest first; those without a price behind, the smallest first."""
    cost = one.usd_per_million
    cores = one.setting.instance.cores(one.setting.lnc) * one.instances
    return cost is None, cost or 0.0, cores, str(one.setting)


def _power(size: int) -> int:
    bucket = 128
    while bucket < size:
        bucket *= 2
    return bucket
