"""Where a row's run took place: its instance, LNC and nodes, as rows write them."""

from __future__ import annotations

import re

from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.devices import Instance, instance, instances
from ridgeline_backends.neuron.timing.machine import Machine

_NAME = re.compile(r"[a-z]+\d[a-z]*\.\d*xlarge|trn[23][a-z0-9-]*ultraserver")
_FAMILY = re.compile(r"(inf1|inf2|trn1n?|trn2u?|trn3)")
_SIZE = re.compile(r"\b\d*xlarge\b")
_LARGEST = {
    "inf1": "inf1.24xlarge",
    "inf2": "inf2.48xlarge",
    "trn1": "trn1.32xlarge",
    "trn1n": "trn1n.32xlarge",
    "trn2": "trn2.48xlarge",
    "trn2u": "trn2u.48xlarge",
    "trn3": "trn3.3xlarge",
}


def machine_of(row: Row, *, nodes: int = 1) -> Machine:
    """The machine. Raises `UnpredictableRow` for an LNC that its chips do not have."""
    found = instance_of(row)
    return Machine(found, lnc_of(row, found, row.integer("tp", 1)), nodes)


def instance_of(row: Row) -> Instance:
    """Where a row names the family alone, its largest instance type, or the one of the size that it
    gives apart ("trn2 (3xlarge, TP4)"). Raises `UnpredictableRow` for what is no Neuron instance,
    and for a type of a family that the family does not have."""
    written = row.text("instance").lower()
    named = _NAME.findall(written)
    known = next((name for name in named if name in instances()), None)
    if known is not None:
        return instance(known)
    family = _FAMILY.search(written)
    if family is None:
        raise UnpredictableRow(f"{row.id}: {row.text('instance')!r} has no Neuron devices.")
    if named:
        there = [name for name in instances() if name.partition(".")[0] == family.group()]
        raise UnpredictableRow(
            f"{row.id}: there is no instance type {named[0]}.",
            hint=f"Of {family.group()} there are: {', '.join(there)}.",
        )
    size = _SIZE.search(written)
    sized = f"{family.group()}.{size.group()}" if size is not None else ""
    return instance(sized if sized in instances() else _LARGEST[family.group()])


def lnc_of(row: Row, found: Instance, group: int) -> int:
    """Physical cores of a logical one. Where the row does not say: the chip's default, or one where
    a group of so many cores fits no other way."""
    chip = found.chip
    if not row.has("lnc"):
        fits = group <= found.cores(chip.default_lnc) or group > found.cores(1)
        return chip.default_lnc if fits else 1
    lnc = row.integer("lnc")
    if lnc not in chip.lnc:
        raise UnpredictableRow(
            f"{row.id}: {found.name} has no LNC {lnc}.",
            hint=f"It has: {', '.join(map(str, chip.lnc))}.",
        )
    return lnc


def degree_of(row: Row, machine: Machine, default: int = 1) -> int:
    """How many cores a copy of the model is cut over. Raises `UnpredictableRow` for more than there
    are, and for more copies than there is room for."""
    degree = row.integer("tp", default)
    taken = degree * row.integer("dp", 1)
    if taken > machine.cores:
        copies = "" if taken == degree else f" times dp {row.integer('dp', 1)}"
        raise UnpredictableRow(
            f"{row.id}: tp {degree}{copies} is more than the {machine.cores} cores of "
            f"{machine.instance.name} at LNC {machine.lnc}."
        )
    return degree
