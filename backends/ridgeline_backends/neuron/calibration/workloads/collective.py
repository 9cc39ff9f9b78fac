"""Rows of nccom-test: one collective, over and over."""

from __future__ import annotations

from math import log2

from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.operations import (
    AllGather,
    AllReduce,
    AllToAll,
    Group,
    Permute,
    ReduceScatter,
)
from ridgeline_backends.neuron.program import (
    Buffer,
    ElementType,
    Form,
    Operation,
    OperationKind,
    Program,
    Section,
)
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import REFERENCE_MINOR, Part, Work

_DEVICE_TIMED = 0.2
"""Tables that time on the device leave out most of what starting a collective takes."""

_OLD_CORES = ("v1", "v2")
"""Of chips that the older tables can be of."""

_DTYPES = {"fp32": ElementType.FP32, "bf16": ElementType.BF16, "fp16": ElementType.FP16}


def collective_quantities(row: Row) -> list[Quantity]:
    """Fields of "collective". Older tables are timed by the host, which starts every rank: that
    grows with the depth of the tree it starts them by."""
    ranks, nodes = row.integer("ranks"), row.integer("nodes", 1)
    dtype = _DTYPES.get(row.text("dtype"), ElementType.FP32)
    elements = max(1, row.integer("bytes") // dtype.bytes)
    kind = _kind(row, Group(ranks))
    if isinstance(kind, AllGather):
        elements = max(1, elements // ranks)
    elif isinstance(kind, ReduceScatter | AllToAll):
        elements = -(-elements // ranks) * ranks
    x = Buffer("x", Form((elements,), dtype))
    operation = Operation(kind, (x,), (Buffer("y", kind.infer((x.form,))[0]),))
    machine = Machine(instance(_instance(row, ranks)), _lnc(row, ranks), nodes)
    work = Work.of(Program("collective", (Section("one", (operation,)),), cores=ranks), machine)
    device_timed = _device_timed(row)
    newest = device_timed or machine.chip.neuroncore not in _OLD_CORES
    rows = work.run_by(None if newest else REFERENCE_MINOR).rows.copy()
    rows[:, Part.COLLECTIVES] *= _DEVICE_TIMED if device_timed else _starts(ranks, nodes)
    return [Quantity("time_us", "collective", Work(rows), 1e6)]


def _kind(row: Row, group: Group) -> OperationKind:
    name = row.text("op").removesuffix("v")
    kinds: dict[str, OperationKind] = {
        "allr": AllReduce(group),
        "allg": AllGather(group, 0),
        "redsct": ReduceScatter(group, 0),
        "redsc": ReduceScatter(group, 0),
        "reducescatter": ReduceScatter(group, 0),
        "alltoall": AllToAll(group, 0, 0),
        "all_to_all": AllToAll(group, 0, 0),
        "sendrecv": Permute(group, 1),
        "permute": Permute(group, 1),
    }
    if name not in kinds:
        raise UnpredictableRow(f"{row.id}: there is no collective {name!r}.")
    return kinds[name]


def _instance(row: Row, ranks: int) -> str:
    named = row.text("instance")
    if named.startswith(("trn", "inf")) and "." in named:
        return named.split()[0]
    return "trn1.32xlarge" if ranks <= 32 or row.integer("nodes", 1) > 1 else "trn2.48xlarge"


def _lnc(row: Row, ranks: int) -> int:
    return instance(_instance(row, ranks)).chip.default_lnc


def _device_timed(row: Row) -> bool:
    """As the newest tables are."""
    return "newer" in row.text("generation") or row.has("p50_us") or "v" in row.text("op")[-1:]


def _starts(ranks: int, nodes: int) -> float:
    return (1 + log2(max(2, ranks))) * (1 + 2 * (nodes - 1))
