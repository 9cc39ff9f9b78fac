"""What there is to rent: which simulated instance types, and at what price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.devices import Instance, instance, instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """`only`: these types, all if none is named. `prices`: USD an hour, in the place of listed
    ones."""

    only: Sequence[str] = ()
    prices: Mapping[str, float] = field(default_factory=dict)

    def offers(self) -> list[Instance]:
        """Types that programs are compiled for. Raises `InvalidInput` for names of none."""
        named = [_compiled_for(name) for name in self.only]
        prices = {_compiled_for(name).name: price for name, price in self.prices.items()}
        offered = named or [one for one in instances().values() if _has_compiler(one)]
        return [
            replace(one, price_usd_h=prices[one.name]) if one.name in prices else one
            for one in offered
        ]


EVERYTHING = Market()


def _compiled_for(name: str) -> Instance:
    found = instance(name.removeprefix("ml."))
    if not _has_compiler(found):
        raise InvalidInput(
            f"{found.name} has NeuronCores-v1, which no program is compiled for here.",
            hint="ml.inf2 types have the next ones.",
        )
    return found


def _has_compiler(found: Instance) -> bool:
    return found.chip.neuroncore != "v1"
