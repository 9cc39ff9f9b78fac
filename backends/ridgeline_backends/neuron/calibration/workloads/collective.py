"""Rows of nccom-test: one collective, over and over."""

from __future__ import annotations

import re
from math import log2

from ridgeline_backends.neuron.calibration.places import instance_of, lnc_of
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

_BETWEEN = re.compile(r"[-_ ]+")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*(?:b|([kmg])(?:i?b)?)")
_UNITS = ("", "k", "m", "g")

_SEND = "sendrecv"
_TABLES = ("trn1.32xlarge", "trn2.48xlarge", "trn2-ultraserver")
"""Machines that the published tables are of, and what is larger."""

_DTYPES = {"fp32": ElementType.FP32, "bf16": ElementType.BF16, "fp16": ElementType.FP16}


def collective_quantities(row: Row) -> list[Quantity]:
    """Fields of "collective". Older tables are timed by the host, which starts every rank: that
    grows with the depth of the tree it starts them by."""
    ranks = row.integer("ranks")
    if ranks < 2:
        raise UnpredictableRow(f"{row.id}: a collective has two ranks at least, not {ranks}.")
    machine = _machine(row, ranks)
    nodes = machine.nodes
    dtype = _DTYPES.get(row.stated("dtype"), ElementType.FP32)
    elements = max(1, _bytes(row) // dtype.bytes)
    kind = _kind(row, Group(ranks))
    if isinstance(kind, AllGather):
        elements = max(1, elements // ranks)
    elif isinstance(kind, ReduceScatter | AllToAll):
        elements = -(-elements // ranks) * ranks
    x = Buffer("x", Form((elements,), dtype))
    operation = Operation(kind, (x,), (Buffer("y", kind.infer((x.form,))[0]),))
    work = Work.of(Program("collective", (Section("one", (operation,)),), cores=ranks), machine)
    device_timed = _device_timed(row)
    newest = device_timed or machine.chip.neuroncore not in _OLD_CORES
    rows = work.run_by(None if newest else REFERENCE_MINOR).rows.copy()
    rows[:, Part.COLLECTIVES] *= _DEVICE_TIMED if device_timed else _starts(ranks, nodes)
    return [Quantity("time_us", "collective", Work(rows), 1e6)]


def _kind(row: Row, group: Group) -> OperationKind:
    name = _name(row)
    kinds: dict[str, OperationKind] = {
        "allr": AllReduce(group),
        "allreduce": AllReduce(group),
        "allg": AllGather(group, 0),
        "allgather": AllGather(group, 0),
        "redsct": ReduceScatter(group, 0),
        "redsc": ReduceScatter(group, 0),
        "reducescatter": ReduceScatter(group, 0),
        "alltoall": AllToAll(group, 0, 0),
        _SEND: Permute(group, 1),
        "permute": Permute(group, 1),
    }
    if name not in kinds:
        raise UnpredictableRow(
            f"{row.id}: there is no collective {name!r}.", hint=f"There are: {', '.join(kinds)}."
        )
    return kinds[name]


def _name(row: Row) -> str:
    """Without the letter of those that take parts of different lengths."""
    written = _written(row)
    return written if written == _SEND else written.removesuffix("v")


def _written(row: Row) -> str:
    """In small letters, its words together: "all_reduce" and "AllReduce" are one."""
    return _BETWEEN.sub("", row.stated("op"))


def _bytes(row: Row) -> int:
    """As nccom-test is told them: "1MB" is a mebibyte."""
    found = _SIZE.fullmatch(row.stated("bytes"))
    if found is None:
        return row.integer("bytes")
    size = int(float(found.group(1)) * 1024 ** _UNITS.index(found.group(2) or ""))
    if size < 1:
        raise UnpredictableRow(f"{row.id}: bytes {row.text('bytes')!r} are none to send.")
    return size


def _machine(row: Row, ranks: int) -> Machine:
    """The row's own; where it names none, the oldest that holds the ranks, or several."""
    nodes = row.integer("nodes", 1)
    each = -(-ranks // nodes)
    if row.text("instance"):
        found = instance_of(row)
    else:
        tables = [instance(name) for name in _TABLES]
        found = next((one for one in tables if each <= one.cores(1)), tables[-1])
        nodes = max(nodes, -(-ranks // found.cores(1)))
        each = -(-ranks // nodes)
    lnc = lnc_of(row, found, each)
    if ranks > found.cores(lnc) * nodes:
        raise UnpredictableRow(
            f"{row.id}: {ranks} ranks are more than the {found.cores(lnc) * nodes} cores of "
            f"{nodes} x {found.name} at LNC {lnc}."
        )
    return Machine(found, lnc, nodes)


def _device_timed(row: Row) -> bool:
    """As the newest tables are. Of a row that does not name its generation a column of percentiles
    is a sign, whatever it holds: the tool has printed it since it times on the device. Ranks, sizes
    and the source's page are the same of both generations, and no row of either says its SDK."""
    newest = "newer" in row.stated("generation") or row.has("p50_us")
    return newest or _name(row) != _written(row)


def _starts(ranks: int, nodes: int) -> float:
    return (1 + log2(max(2, ranks))) * (1 + 2 * (nodes - 1))
