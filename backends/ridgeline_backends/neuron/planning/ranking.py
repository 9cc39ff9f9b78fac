"""What plans of any kind of model have in common: settings, how they are ranked, and why others are
left out. Knows neither programs nor models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.devices import Instance
from ridgeline_backends.neuron.planning.market import Market
from ridgeline_backends.neuron.timing.predict import Prediction

_ENOUGH = 5
"""Options that hold the wanted rate; dearer ones are tried for their speed alone."""

_TRIES = 24
"""So many options, of those with a price and of the others, are simulated until enough hold it."""

WORTH_SAYING = 1.1
"""Times the speed of what is cheaper."""

_GIB = 1 << 30


def usd_per_million(price_usd_h: float | None, a_second: float) -> float | None:
    """What a million tokens or texts cost at so many a second; None where no price is listed."""
    return None if price_usd_h is None else price_usd_h / 3600 / a_second * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a model."""

    instance: Instance
    lnc: int
    tp: int
    batch: int
    quantized: bool = False

    def __str__(self) -> str:
        weights = "8-bit" if self.quantized else "bf16"
        return (
            f"{self.instance.name} LNC {self.lnc} TP {self.tp} copies {self.copies} "
            f"batch {self.batch} {weights}"
        )

    @property
    def copies(self) -> int:
        """How many copies of the model an instance has room for."""
        return self.instance.cores(self.lnc) // self.tp


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(ABC):
    """A setting that fits. `instances`: how many are needed for the wanted rate. `wanted`: tokens,
    or texts, a second of all of them; None: all that they make. `misses`: what it misses of the
    targets."""

    setting: Setting
    core_bytes: int
    instances: int
    wanted: float | None
    misses: tuple[str, ...]

    @property
    @abstractmethod
    def each_s(self) -> float:
        """Tokens, or texts, a second of one instance."""

    @property
    def made_s(self) -> float:
        """That are paid for, a second: what is idle costs too."""
        return self.wanted or self.each_s * self.instances

    @property
    def usd_per_million(self) -> float | None:
        """Tokens, or texts; None where no price is listed."""
        price = self.setting.instance.price_usd_h
        return usd_per_million(None if price is None else price * self.instances, self.made_s)

    @property
    def core_seconds(self) -> float:
        """Of a token, or text: what is compared where no price is listed."""
        cores = self.setting.instance.cores(self.setting.lnc) * self.setting.lnc
        return cores * self.instances / self.made_s

    @property
    def priced(self) -> bool:
        return self.setting.instance.price_usd_h is not None

    @property
    @abstractmethod
    def pace(self) -> Prediction:
        """What is traded against the cost: the time of a token, or of a call."""

    @property
    @abstractmethod
    def alone_s(self) -> float:
        """Seconds to the shortest answer, of a request that nobody else's holds up."""


C = TypeVar("C", bound=Candidate)
C_co = TypeVar("C_co", bound=Candidate, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[C_co]):
    """`options` meet the targets, cheapest first, and hold the wanted rate; `near` fit but miss
    one; `untried` are dearer than enough that hold it; `left_out`: why the others of an instance
    type cannot be."""

    options: tuple[C_co, ...]
    near: tuple[C_co, ...]
    untried: tuple[C_co, ...]
    left_out: Mapping[str, str]

    @property
    def front(self) -> tuple[C_co, ...]:
        """Of the options with a price, those than which none is both cheaper and faster: the
        cheapest first, the fastest last."""
        found: list[C_co] = []
        for one in self.options:
            if one.usd_per_million is None:
                continue
            if not found or one.pace.seconds < found[-1].pace.seconds:
                found.append(one)
        return tuple(found)


class Sweep(Protocol[C]):
    """Sizes and times settings of one model."""

    def core_bytes(self, setting: Setting) -> int:
        """What a core's memory must hold. Raises `BackendError` where a setting cannot be."""

    def check(self, setting: Setting) -> None:
        """Raises `BackendError` for what fits and cannot be compiled."""

    def option(self, setting: Setting) -> C:
        """What a setting that fits takes and costs."""

    def under_load(self, option: C, rps: float) -> C:
        """The option at the wanted rate, simulated."""


def ranked(sweep: Sweep[C], settings: Iterable[Setting], rps: float | None) -> Plan[C]:
    """Every setting, sized and timed."""
    found: list[C] = []
    refused: dict[str, _Refusal] = {}
    for setting in settings:
        reason = _refusal(sweep, setting)
        if reason is None:
            found.append(sweep.option(setting))
        else:
            name = setting.instance.name
            refused[name] = min(refused.get(name, reason), reason, key=lambda one: one.lacks)
    kept = {one.setting.instance.name for one in found}
    left_out = {name: one.reason for name, one in refused.items() if name not in kept}
    in_order = sorted(found, key=_rank)
    options = [one for one in in_order if not one.misses]
    near = [one for one in in_order if one.misses]
    untried: list[C] = []
    if rps is not None:
        tried: list[C] = []
        for priced in (True, False):
            _try(sweep, [one for one in options if one.priced is priced], rps, tried, untried)
        options = sorted((one for one in tried if not one.misses), key=_rank)
        near = [*(one for one in tried if one.misses), *near]
    return Plan(options=tuple(options), near=tuple(near), untried=tuple(untried), left_out=left_out)


def _try(
    sweep: Sweep[C], options: Sequence[C], rps: float, tried: list[C], untried: list[C]
) -> None:
    """Simulate the cheapest until enough hold the rate, and of dearer ones those that are faster
    than all that do by what is worth saying."""
    held = 0
    fastest = cheapest = inf
    for place, one in enumerate(options):
        # Under load an option may take more instances than on average, and cost more.
        enough = held >= _ENOUGH and _cost(one) >= cheapest
        few = not enough and (place < _TRIES or _cost(one) < cheapest < inf)
        if few or (held and one.pace.seconds * WORTH_SAYING < fastest):
            found = sweep.under_load(one, rps)
            tried.append(found)
            if not found.misses:
                held += 1
                fastest = min(fastest, found.pace.seconds)
                cheapest = min(cheapest, _cost(found))
        else:
            untried.append(one)


def settings_of(
    market: Market, batches: Iterable[int], quantized: Iterable[bool] = (False,)
) -> Iterator[Setting]:
    """All, the largest degree of a type first: what it cannot hold the others cannot. Raises
    `InvalidInput` for types that there are not."""
    batches, quantized = tuple(batches), tuple(quantized)
    for instance in market.offers():
        for lnc in reversed(instance.chip.lnc):
            for tp in reversed(instance.tensor_parallel):
                for batch in batches:
                    for eight in quantized:
                        yield Setting(
                            instance=instance, lnc=lnc, tp=tp, batch=batch, quantized=eight
                        )


def missed(name: str, seconds: float, limit: float | None) -> tuple[str, ...]:
    """What is said of a time above its limit; nothing of one below."""
    if limit is None or seconds <= limit:
        return ()
    return (f"{name} {_ms(seconds)} ms is above {_ms(limit)} ms",)


def _ms(seconds: float) -> str:
    """Three digits, so that 1.2 is not 1 and 1234 not 1.23e+03."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """`lacks`: bytes of a core, by which the setting that comes closest is known; 0 where it is not
    memory."""

    reason: str
    lacks: float = 0.0


def _refusal(sweep: Sweep[C], setting: Setting) -> _Refusal | None:
    """Why a setting cannot be; None if it can."""
    cores = setting.instance.cores(setting.lnc)
    if setting.tp > cores:
        return _Refusal(f"TP {setting.tp} asks for more than its {cores} cores", inf)
    limit = setting.instance.core_memory_bytes(setting.lnc)
    try:
        need = sweep.core_bytes(setting)
        if need > limit:
            narrow = ", 8-bit weights" if setting.quantized else ""
            return _Refusal(
                f"does not fit: {need / _GIB:.1f} GiB a core of {limit / _GIB:.0f} at "
                f"TP {setting.tp}, batch {setting.batch}{narrow}",
                need - limit,
            )
        sweep.check(setting)
    except BackendError as error:
        return _Refusal(error.message)
    return None


def _rank(one: Candidate) -> tuple[bool, bool, float, float, str]:
    """The cheapest first, of several the fastest; behind them those without a price, by the cores
    that they keep busy: cores of different chips are not worth the same, but those that no row was
    published of, whose times are the least sure, come last."""
    unsure = not one.priced and one.pace.label == "prior-only"
    return not one.priced, unsure, _cost(one), one.pace.seconds, str(one.setting)


def _cost(one: Candidate) -> float:
    return one.core_seconds if one.usd_per_million is None else one.usd_per_million
