"""Instance types as profiles: memory, cores, accelerators, price. Data: ``instance_types.yaml``.

A profile reserves nothing. It bounds what one replica may declare, says what the model would cost
on AWS, and names accelerators this machine may not have. A type of SageMaker's that the data does
not describe gets a profile derived from its name, which is marked as such.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from botocore.loaders import Loader

from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.machine import GIB

AcceleratorKind = Literal["gpu", "hpu", "neuron"]

_NAME = re.compile(r"ml\.(?P<letters>[a-z]+)[^.]*\.(?P<size>medium|large|(?P<times>\d*)xlarge)")


@dataclass(frozen=True)
class Accelerator:
    """``count`` is None where it is not known."""

    kind: AcceleratorKind
    name: str
    count: int | None


@dataclass(frozen=True)
class InstanceType:
    """``usd_per_hour`` is the public price of the day ``priced_on`` (us-east-1), if it is known.

    ``derived``: cores and memory follow from the name by the family's usual ratio; the real ones
    may differ.
    """

    name: str
    vcpus: int
    memory_bytes: int
    accelerator: Accelerator | None = None
    usd_per_hour: float | None = None
    priced_on: str = ""
    derived: bool = False


def instance_type(name: str) -> InstanceType:
    """The profile of a type. Raises ValidationException with the nearest known names."""
    found = _table().get(name) or _derived().get(name)
    if found is None:
        raise ValidationException(
            f"Instance type {name[:100]!r} is not known to this service.",
            hint=f"Known are {', '.join(nearest_types(name))} and others.",
        )
    return found


def gpus_of(name: str) -> int:
    """How many GPUs a type has, at least one for a GPU type; none for what is no type."""
    if not is_instance_type(name):
        return 0
    accelerator = instance_type(name).accelerator
    if accelerator is None or accelerator.kind != "gpu":
        return 0
    return accelerator.count or 1


def is_neuron(name: str) -> bool:
    """Whether a type has Inferentia or Trainium devices."""
    if not is_instance_type(name):
        return False
    accelerator = instance_type(name).accelerator
    return accelerator is not None and accelerator.kind == "neuron"


def instance_types() -> tuple[InstanceType, ...]:
    """Those that the data describes."""
    return tuple(_table().values())


def is_instance_type(name: str) -> bool:
    """Whether the type has a profile, of its own or derived."""
    return name in _table() or name in _derived()


def nearest_types(name: str) -> list[str]:
    """A few types that may be meant, the nearest first; the usual ones where none is near."""
    known = {**_table(), **_derived()}
    if f"ml.{name}" in known:
        return [f"ml.{name}"]
    return get_close_matches(name[:100], known, n=3) or ["ml.m5.large", "ml.m5.xlarge"]


@cache
def _table() -> dict[str, InstanceType]:
    raw = _data()
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


@cache
def _derived() -> dict[str, InstanceType]:
    """Profiles of the types that SageMaker has and the data lacks.

    botocore's model is the list of them: it grows with every release of botocore.
    """
    model = Loader().load_service_model("sagemaker", "service-2")
    names: list[str] = model["shapes"]["ProductionVariantInstanceType"]["enum"]
    ratios, table = _data()["derived"], _table()
    found: dict[str, InstanceType] = {}
    for name in names:
        parts = _NAME.fullmatch(name)
        if name in table or parts is None:
            continue
        entry = ratios.get(parts["letters"], ratios["other"])
        vcpus = _vcpus(parts["size"], parts["times"])
        kind = entry.get("kind")
        found[name] = InstanceType(
            name=name,
            vcpus=vcpus,
            memory_bytes=vcpus * int(entry["gib_per_vcpu"]) * GIB,
            accelerator=Accelerator(kind, entry["accelerator"], None) if kind else None,
            derived=True,
        )
    return found


def _vcpus(size: str, times: str | None) -> int:
    match size:
        case "medium":
            return 1
        case "large":
            return 2
        case _:
            return 4 * int(times or 1)


@cache
def _data() -> dict[str, Any]:
    text = files("ridgeline_service.placement").joinpath("instance_types.yaml").read_text()
    raw: dict[str, Any] = yaml.safe_load(text)
    return raw
