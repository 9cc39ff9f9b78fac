"""Instance types as profiles: memory, cores, accelerators, price. Data: ``instance_types.yaml``.

A profile reserves nothing. It bounds what one replica may declare, says what the model would cost
on AWS, and names accelerators this machine may not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from ridgeline.errors import did_you_mean
from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.machine import GIB

AcceleratorKind = Literal["gpu", "neuron"]


@dataclass(frozen=True)
class Accelerator:
    kind: AcceleratorKind
    name: str
    count: int


@dataclass(frozen=True)
class InstanceType:
    """``usd_per_hour`` is the public price of the day ``priced_on`` (us-east-1), if it is known."""

    name: str
    vcpus: int
    memory_bytes: int
    accelerator: Accelerator | None = None
    usd_per_hour: float | None = None
    priced_on: str = ""


def instance_type(name: str) -> InstanceType:
    """The profile of a type. Raises ValidationException with the nearest known name."""
    known = _table()
    if name not in known:
        raise ValidationException(
            f"Instance type {name!r} is not known to this service.", hint=did_you_mean(name, known)
        )
    return known[name]


def instance_types() -> tuple[InstanceType, ...]:
    return tuple(_table().values())


@cache
def _table() -> dict[str, InstanceType]:
    text = files("ridgeline_service.placement").joinpath("instance_types.yaml").read_text()
    raw: dict[str, Any] = yaml.safe_load(text)
    found: dict[str, InstanceType] = {}
    for family, entry in raw["families"].items():
        kind = entry.get("kind")
        for size, values in entry["sizes"].items():
            vcpus, memory_gib, *rest = values
            accelerator = None
            if kind is not None:
                accelerator = Accelerator(kind, entry["accelerator"], int(rest.pop(0)))
            price = float(rest[0]) if rest else None
            name = f"ml.{family}.{size}"
            found[name] = InstanceType(
                name=name,
                vcpus=vcpus,
                memory_bytes=int(memory_gib * GIB),
                accelerator=accelerator,
                usd_per_hour=price,
                priced_on=str(raw["priced_on"]) if price is not None else "",
            )
    return found
