"""What plans of any kind of model have in common: settings, how they are ranked, and why others are
left out. Knows neither programs nor models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.devices import Instance
from ridgeline_backends.neuron.planning.market import Market
from ridgeline_backends.neuron.timing.predict import Prediction

_SIMULATED = 8
"""So many of the cheapest options are tried under the wanted rate."""

_GIB = 1 << 30


def usd_per_million(price_usd_h: float | None, a_second: float) -> float | None:
    """What a million tokens or texts cost at so many a second; None where no price is listed."""
    return None if price_usd_h is None else price_usd_h / 3600 / a_second * 1e6


def usd_at_rate(setting: Setting, count: int, each: float, wanted: float | None) -> float | None:
    """The same on `count` instances that make `each` a second, for `wanted` a second in all: idle
    time is paid for too. None wanted: all that they make."""
    price = setting.instance.price_usd_h
    return usd_per_million(None if price is None else price * count, wanted or each * count)


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
    """A setting that fits. `instances`: how many are needed for the wanted rate. `usd_per_million`:
    tokens, or texts; None where no price is listed. `misses`: what it misses of the targets."""

    setting: Setting
    core_bytes: int
    instances: int
    usd_per_million: float | None
    misses: tuple[str, ...]

    @property
    def priced(self) -> bool:
        return self.usd_per_million is not None

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
    """`options` meet the targets, cheapest first; `near` fit but miss one; `left_out`: why the
    others of an instance type cannot be."""

    options: tuple[C_co, ...]
    near: tuple[C_co, ...]
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
    left_out: dict[str, str] = {}
    for setting in settings:
        reason = _refusal(sweep, setting)
        if reason is None:
            found.append(sweep.option(setting))
        else:
            left_out.setdefault(setting.instance.name, reason)
    for one in found:
        left_out.pop(one.setting.instance.name, None)
    in_order = sorted(found, key=_rank)
    options = [one for one in in_order if not one.misses]
    near = [one for one in in_order if one.misses]
    if rps is not None:
        tried = [sweep.under_load(one, rps) for one in options[:_SIMULATED]]
        near = [*(one for one in tried if one.misses), *near]
        tried = [one for one in tried if not one.misses]
        options = sorted([*tried, *options[_SIMULATED:]], key=_rank)
    return Plan(options=tuple(options), near=tuple(near), left_out=left_out)


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


def _refusal(sweep: Sweep[C], setting: Setting) -> str | None:
    """Why a setting cannot be; None if it can."""
    cores = setting.instance.cores(setting.lnc)
    if setting.tp > cores:
        return f"TP {setting.tp} asks for more than its {cores} cores"
    limit = setting.instance.core_memory_bytes(setting.lnc)
    try:
        need = sweep.core_bytes(setting)
        if need > limit:
            return (
                f"does not fit: {need / _GIB:.1f} GiB a core of {limit / _GIB:.0f} at "
                f"TP {setting.tp}, batch {setting.batch}"
            )
        sweep.check(setting)
    except BackendError as error:
        return error.message
    return None


def _rank(one: Candidate) -> tuple[bool, float, int, str]:
    """The cheapest first; those without a price behind, the smallest first."""
    cost = one.usd_per_million
    cores = one.setting.instance.cores(one.setting.lnc) * one.instances
    return cost is None, cost or 0.0, cores, str(one.setting)
