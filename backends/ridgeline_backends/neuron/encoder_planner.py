"""Which instance for a text encoder? As `planner` for decoders: settings are ranked by what a
million texts cost where every call is full."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from ridgeline.errors import InvalidInput
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.buckets import bucket_of
from ridgeline_backends.neuron.builders.text_encoder import text_encoder_program
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices.model import Chip
from ridgeline_backends.neuron.encoder_plan import LONGEST, MOST_TEXTS, encoder_programs
from ridgeline_backends.neuron.liveness import core_need
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
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.serving.requests import answer_each
from ridgeline_backends.neuron.timing.predict import Prediction

BATCHES = (1, 2, 4, 8, MOST_TEXTS)
_REQUESTS = 1000
"""Of a simulated run: enough for a 90th percentile."""

_TRIES = 3
_BUSIEST = 0.95
"""Busier replicas have queues whose length is chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTarget:
    """What is wanted of texts of `seq` tokens. `latency_s`: of a call; `rps`: texts a second."""

    seq: int = 128
    latency_s: float | None = None
    rps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCalls:
    """What clients see at the wanted rate, each of whose requests fills a call. Seconds."""

    instances: int
    latency_p90: float
    utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOption(Candidate):
    """`call`: of a full one. `texts_s`: of an instance, all its cores. Costs are of texts."""

    call: Prediction
    texts_s: float
    loaded: LoadedCalls | None = None

    @property
    def each_s(self) -> float:
        return self.texts_s

    @property
    def pace(self) -> Prediction:
        return self.call

    @property
    def alone_s(self) -> float:
        return self.call.seconds


def make_encoder_plan(
    model: EncoderConfig, target: EncoderTarget, market: Market = EVERYTHING
) -> Plan[EncoderOption]:
    """Raises `InvalidInput` for texts that the model does not read, and instance types that there
    are not."""
    return ranked(_Sweep(model, target), settings_of(market, BATCHES), target.rps)


def bucket_for(model: EncoderConfig, seq: int) -> int:
    """The compiled length for texts of so many tokens. Raises `InvalidInput`."""
    if seq > model.context_length:
        raise InvalidInput(
            f"Texts of {seq} tokens are above the model's context length {model.context_length}.",
            hint="Longer texts are cut into pieces, or cut off, before they are encoded.",
        )
    return bucket_of(NeuronConfig(seq_len=model.context_length).context_buckets, seq)


class _Sweep:
    def __init__(self, model: EncoderConfig, target: EncoderTarget) -> None:
        self._model, self._target = model, target
        self._bucket = bucket_for(model, target.seq)
        self._programs: dict[tuple[int, int], Program] = {}
        self._bytes: dict[tuple[int, int, Chip], int] = {}
        self._timings = Timings()

    def core_bytes(self, setting: Setting) -> int:
        chip = setting.instance.chip
        key = setting.tp, setting.batch, chip
        if key not in self._bytes:
            programs = self._compiled(setting.tp, setting.batch)
            self._bytes[key] = core_need(programs, chip).total
        return self._bytes[key]

    def check(self, setting: Setting) -> None:
        key = setting.tp, setting.batch
        self._timings.check(key, setting, lambda: self._program(*key))

    def option(self, setting: Setting) -> EncoderOption:
        target, key = self._target, (setting.tp, setting.batch)
        call = self._timings.of(key, setting, lambda: self._program(*key))
        rate = setting.copies * setting.batch / call.seconds
        count = max(1, ceil(target.rps / rate)) if target.rps else 1
        return EncoderOption(
            setting=setting,
            core_bytes=self.core_bytes(setting),
            call=call,
            texts_s=rate,
            instances=count,
            wanted=target.rps,
            misses=missed("a call", call.seconds, target.latency_s),
        )

    def under_load(self, option: EncoderOption, rps: float) -> EncoderOption:
        setting, limit = option.setting, self._target.latency_s
        least = ceil(rps / option.texts_s / _BUSIEST)
        found = 0.0
        for instances in range(least, least + _TRIES):
            calls_s = rps / (instances * setting.copies * setting.batch)
            load = Load(lengths=Lengths(prompt=1, answer=1), rate=calls_s, requests=_REQUESTS)
            found = answer_each(option.call.seconds, load).latency(0.9)
            if limit is None or found <= limit:
                return replace(
                    option,
                    instances=instances,
                    loaded=LoadedCalls(
                        instances=instances,
                        latency_p90=found,
                        utilisation=calls_s * option.call.seconds,
                    ),
                )
        at = f"at {rps:g} texts a second, {instances} of them, the p90 of a call"
        return replace(option, misses=missed(at, found, limit))

    def _compiled(self, tp: int, batch: int) -> list[Program]:
        """What an endpoint of this setting compiles: every bucket, for one text and for a batch."""
        length = min(LONGEST, self._model.context_length)
        neuron = NeuronConfig(tp_degree=tp, batch_size=batch, seq_len=max(length, self._bucket))
        return encoder_programs(self._model, neuron, Pooling())

    def _program(self, tp: int, batch: int) -> Program:
        if (tp, batch) not in self._programs:
            self._programs[tp, batch] = text_encoder_program(
                self._model,
                NeuronConfig(tp_degree=tp, batch_size=batch, seq_len=self._bucket),
                pooling=Pooling(),
                bucket=self._bucket,
                batch=batch,
            )
        return self._programs[tp, batch]
