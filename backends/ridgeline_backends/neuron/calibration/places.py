"""Where a row's run took place: its instance, LNC and nodes, as rows write them."""

from __future__ import annotations

import re

from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.devices import instance, instances
from ridgeline_backends.neuron.timing.machine import Machine

_NAME = re.compile(r"[a-z]+\d[a-z]*\.\d*xlarge|trn[23][a-z0-9-]*ultraserver")
_FAMILY = re.compile(r"(inf1|inf2|trn1n?|trn2u?|trn3)")
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
    """The machine. Where a row names the family alone, its largest instance type."""
    written = row.text("instance")
    named = _NAME.search(written)
    family = _FAMILY.search(written)
    if named is not None and named.group() in instances():
        found = instance(named.group())
    elif family is not None:
        found = instance(_LARGEST[family.group()])
    else:
        raise UnpredictableRow(f"{row.id}: {written!r} has no Neuron devices.")
    lnc = row.integer("lnc", found.chip.default_lnc)
    return Machine(found, lnc if lnc in found.chip.lnc else found.chip.default_lnc, nodes)
