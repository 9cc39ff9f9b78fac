"""What a compiled module is: the operations of a program, what each is lowered to, sizes and times.

An artifact is one JSON document: the summary that is printed and served by, and the program in full
for whoever wants to look. The same graph, settings and compiler give the same bytes, so it does not
matter who wrote one first. A digest tells one that was cut short. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.neuron.instruction_count import instructions
from ridgeline_backends.neuron.instructions import Lowered
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.placement import Placement
from ridgeline_backends.neuron.program import Buffer, ElementType, Operation, Program
from ridgeline_backends.neuron.schedule import lowered
from ridgeline_backends.neuron.step_time import call_time
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import predict

_COMPILER_PARTS = (
    "artifact.py", "collectives.py", "devices", "heap.py", "instruction_count.py",
    "instructions.py", "liveness.py", "lowering", "operations", "schedule.py", "step_time.py",
    "timing",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One compiled program: what it does, the seconds of a call with their interval, and what it
    alone fills of a core's memory, by kind."""

    key: str
    phase: str
    bucket: int
    batch: int
    operations: int
    instructions: int
    flops: int
    bytes: int
    seconds: float
    low: float
    high: float
    label: str
    collective_seconds: float
    peak_seconds: float
    core_bytes: Mapping[str, int]

    @property
    def time(self) -> DeviceTime:
        """Of one call."""
        return DeviceTime(
            seconds=self.seconds,
            low=self.low,
            high=self.high,
            collective_seconds=self.collective_seconds,
            peak_seconds=self.peak_seconds,
        )


@cache
def compiler_version() -> str:
    """Changes with whatever changes a module that is made of an unchanged graph: the digest of the
    compiler's own sources and data."""
    digest = sha256()
    root = Path(__file__).parent
    for part in _COMPILER_PARTS:
        whole = root / part
        files = sorted(whole.rglob("*")) if whole.is_dir() else [whole]
        for path in files:
            if path.suffix in (".py", ".yaml"):
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return f"ridgelinecc-{digest.hexdigest()[:12]}"


def module_key(program: Program, settings: str, placement: Placement) -> str:
    """MODULE_ and the hash of the graph, + the hash of the flags."""
    graph = sha256(repr(program.sections).encode()).hexdigest()[:20]
    flags = f"--target {placement.instance.chip.name} --lnc {placement.lnc} {settings}"
    # Two types of one chip have links and neighbours of their own.
    flags += f" --instance {placement.instance.name} --cores {placement.cores}"
    return f"MODULE_{graph}+{sha256(flags.encode()).hexdigest()[:8]}"


def make_artifact(
    key: str, program: Program, placement: Placement, dtype: ElementType
) -> tuple[Module, bytes]:
    """Compile: lower every operation, size it and time it."""
    machine = placement.machine
    listed = list(_sections(program, machine))
    taken = call_time(program, machine, dtype)
    found = predict(program, machine)
    module = Module(
        key=key,
        phase=program.phase,
        bucket=program.bucket,
        batch=program.batch,
        operations=sum(times for _, times in program.operations()),
        instructions=instructions(program, machine.chip, machine.lnc),
        flops=program.flops,
        bytes=program.bytes,
        seconds=found.seconds,
        low=found.low,
        high=found.high,
        label=found.label,
        collective_seconds=taken.collective_seconds,
        peak_seconds=taken.peak_seconds,
        core_bytes=core_need([program], machine.chip).table(),
    )
    body = {"compiler": compiler_version(), "module": asdict(module), "program": listed}
    return module, json.dumps({**body, "sha256": _digest(body)}, separators=(",", ":")).encode()


def read_artifact(content: bytes) -> Module | None:
    """None for what is no whole artifact of this compiler."""
    try:
        body = json.loads(content)
        digest = body.pop("sha256")
        whole = digest == _digest(body) and body["compiler"] == compiler_version()
        return Module(**body["module"]) if whole else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _digest(body: Mapping[str, object]) -> str:
    return sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


def _sections(program: Program, machine: Machine) -> Iterator[Mapping[str, object]]:
    for section in program.sections:
        works = zip(section.operations, lowered(section, machine.chip), strict=True)
        yield {
            "section": section.name,
            "repeats": section.repeats,
            "operations": [_operation(one, work) for one, work in works],
        }


def _operation(operation: Operation, work: Lowered) -> dict[str, object]:
    found: dict[str, object] = {
        "kind": operation.kind,
        "layer": operation.layer,
        "inputs": [_buffer(one) for one in operation.inputs],
        "outputs": [_buffer(one) for one in operation.outputs],
        "flops": operation.flops,
        "bytes": operation.bytes,
        "steps": work.depth,
        "instructions": [
            {"engine": one.engine.value, "name": one.name, "cycles": one.cycles, "count": one.count}
            for one in work.instructions
        ],
        "transfers": [
            {"stream": one.stream.value, "bytes": one.bytes, "row_bytes": one.row_bytes}
            for one in work.transfers
        ],
    }
    if work.exchange is not None:
        found["exchange"] = asdict(work.exchange)
    return found


def _buffer(buffer: Buffer) -> str:
    """As "hidden bf16[1,512,576]"."""
    shape = ",".join(map(str, buffer.shape))
    return f"{buffer.name} {buffer.dtype.value}[{shape}]"
