"""One call of a program as a trace: what each engine, queue and link of a core does, and when.

In the trace event format that Perfetto and Chrome read. A core is a process, what works in it a
thread. Operations follow one another; within one, engines and DMA begin together and take the time
that the timing model gives them, so what sticks out is what the operation waits for. Weights that
were fetched before are drawn with the operation that uses them, as long as it. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ridgeline_backends.neuron.program import Operation, Program
from ridgeline_backends.neuron.timing.coefficients import Coefficients
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import calibration
from ridgeline_backends.neuron.timing.seconds import operation_seconds
from ridgeline_backends.neuron.timing.work import EXCHANGE, Array, Part, Work

_THREADS: Mapping[str, tuple[Part, ...]] = {
    "Tensor engine": (Part.TENSOR,),
    "Vector engine": (Part.VECTOR,),
    "Scalar engine": (Part.SCALAR,),
    "GpSimd engine": (Part.GPSIMD,),
    "DMA weights": (Part.WEIGHTS, Part.EXPERTS),
    "DMA KV cache": (Part.CACHE,),
    "DMA spill": (Part.SPILL,),
    "Collectives": EXCHANGE,
}
_OPERATIONS = "Operations"


def trace(program: Program, machine: Machine, cores: int) -> dict[str, object]:
    """The trace of the first so many cores, which run alike; times are microseconds."""
    events: list[dict[str, object]] = []
    names = (_OPERATIONS, *_THREADS)
    for core in range(cores):
        events.append(_named("process_name", core, 0, f"NeuronCore {core}"))
        events += [_named("thread_name", core, place, name) for place, name in enumerate(names)]
    for event in _events(program, machine):
        events += [{**event, "pid": core} for core in range(cores)]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "instance_type": machine.instance.name,
            "phase": program.phase,
            "bucket": program.bucket,
            "batch": program.batch,
            "simulated": True,
        },
    }


def _events(program: Program, machine: Machine) -> Iterator[dict[str, object]]:
    known, begin = calibration().coefficients, 0.0
    for section in program.sections:
        rows = Work.each(section, machine).rows
        # Of all repeats together, of which each is drawn alike.
        taken = operation_seconds(rows, known) * 1e6 / section.repeats
        parts = [_parts(row, known) for row in rows]
        for repeat in range(section.repeats):
            layers = section.layers(repeat)
            for operation, total, part in zip(section.operations, taken, parts, strict=True):
                if total > 0:
                    yield from _operation(operation, layers, begin, float(total), part)
                begin += float(total)


def _parts(row: Array, known: Coefficients) -> dict[int, float]:
    """By thread: the microseconds of one operation's part, as if it were alone."""
    found = {}
    for place, columns in enumerate(_THREADS.values(), start=1):
        own = np.zeros_like(row)
        for column in (*columns, Part.VERSIONS):
            own[column] = row[column]
        own[Part.REPEATS] = own[Part.BEGINS] = 1.0
        alone = float(operation_seconds(own[None], known)[0]) * 1e6
        if alone > 0:
            found[place] = alone
    return found


def _operation(
    operation: Operation,
    layers: tuple[int, ...],
    begin: float,
    total: float,
    parts: Mapping[int, float],
) -> Iterator[dict[str, object]]:
    shapes = [f"{one.name.format(*layers)} {list(one.shape)}" for one in operation.inputs]
    known = {
        "layer": operation.layer.format(*layers),
        "inputs": shapes,
        "flops": operation.flops,
        "bytes": operation.bytes,
    }
    common = {"name": operation.kind, "ph": "X", "ts": round(begin, 4)}
    yield {**common, "tid": 0, "dur": round(total, 4), "args": known}
    for place, alone in parts.items():
        yield {**common, "tid": place, "dur": round(min(alone, total), 4)}


def _named(kind: str, core: int, thread: int, name: str) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": core, "tid": thread, "args": {"name": name}}
