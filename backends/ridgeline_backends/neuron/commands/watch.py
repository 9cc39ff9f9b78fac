"""``ridgeline neuron top`` and ``monitor``: what an endpoint's simulated cores do."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli._common import DataDir, open_session
from ridgeline.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from ridgeline.session import Session
    from ridgeline_backends.neuron.scrape import Scrape

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="On a simulated instance.")]
Period = Annotated[float, typer.Option("--period", min=0.1, help="Seconds between two looks.")]
Count = Annotated[int, typer.Option("--count", min=0, help="How many looks; 0: until stopped.")]
Looks = Annotated[
    int | None,
    typer.Option(
        "--count",
        min=0,
        show_default=False,
        help="How many looks; 0: until stopped. Until stopped on a terminal, else 1.",
    ),
]

_BAR = 30


def monitor(
    endpoint: Endpoint, period: Period = 5.0, count: Count = 0, data_dir: DataDir = None
) -> None:
    """Print a line of JSON a period, as neuron-monitor does, and in its schema."""
    from ridgeline_backends.neuron.monitor import report  # prometheus-client: not for --help

    session, before = open_session(data_dir), _Ticks.read()
    for pairs in _pairs(session, endpoint, period, count):
        now, pids = _Ticks.read(), _pids(session, endpoint)
        typer.echo(json.dumps(report(endpoint, pairs, _host(period, now, before), pids)))
        before = now


def top(
    endpoint: Endpoint, period: Period = 1.0, count: Looks = None, data_dir: DataDir = None
) -> None:
    """Show how busy each core is and what fills its memory, as neuron-top does; once and in plain
    text where there is no terminal."""
    terminal = os.isatty(1)
    looks = (0 if terminal else 1) if count is None else count
    for pairs in _pairs(open_session(data_dir), endpoint, period, looks):
        text = "\n".join(line for now, former in pairs for line in _screen(endpoint, now, former))
        if terminal:
            typer.echo("\x1b[H\x1b[J", nl=False)
        typer.echo(text)


def _screen(endpoint: str, now: Scrape, former: Scrape) -> Iterator[str]:
    from ridgeline_backends.neuron.devices import instance
    from ridgeline_backends.neuron.monitor import core_memory
    from ridgeline_backends.neuron.scrape import FAILED, percentiles, utilisation

    found = instance(now.info["instance_type"])
    percent, memory = utilisation(now, former), core_memory(now)
    yield f"{endpoint}  {found.name} (simulated)  replica {now.replica}"
    suffix = "d" if now.lnc == 2 else ""
    yield f"NeuronCore {found.chip.neuroncore}{suffix} Utilization"
    full = "#" * round(percent / 100 * _BAR)
    for core in range(now.cores):
        yield f"  NC{core:<3} [{full:<{_BAR}}] {percent:6.2f}%"
    values = now.values
    yield (
        f"  of the time on cores: {values.get('ridgeline_simulated_collective_share', 0):.0%} "
        f"collectives, {values.get('ridgeline_simulated_core_utilization', 0):.1%} of peak FLOPs"
    )
    limit, used = found.core_memory_bytes(now.lnc), sum(memory.values())
    yield f"Device Used Memory, each core: {used / 2**20:.1f} of {limit / 2**20:.0f} MB"
    for kind, size in memory.items():
        yield f"  {kind.replace('_', ' '):24} {size / 2**20:10.1f} MB"
    latency, ran = percentiles(now, former), sum(now.executed(former).values())
    took = ""
    if latency is not None:
        p50, p99 = (f"{latency[one] * 1e3:.3g} ms" for one in ("p50", "p99"))
        took = f", device latency p50 {p50}, p99 {p99}"
    yield f"Executions: {ran:.0f}{took}"
    failed = {code: count for code, count in now.counted(former, FAILED).items() if count}
    if failed:
        yield f"  errors: {', '.join(f'{count} {code}' for code, count in failed.items())}"


def _pairs(
    session: Session, endpoint: str, period: float, count: int
) -> Iterator[list[tuple[Scrape, Scrape]]]:
    """Every replica now and a period ago. Raises `NotFound`, and `InvalidInput` for a period that
    does not end."""
    if not math.isfinite(period):
        raise InvalidInput(f"--period {period} is no number of seconds.", hint="Like --period 5.")
    former = _scrapes(session, endpoint)
    looks = 0
    while not count or looks < count:
        time.sleep(period)
        now = _scrapes(session, endpoint)
        pairs = [(one, former.get(name, one)) for name, one in now.items()]
        yield pairs
        former, looks = now, looks + 1


def _scrapes(session: Session, endpoint: str) -> dict[str, Scrape]:
    from ridgeline_backends.neuron.scrape import read_scrape  # prometheus-client: as above

    targets = json.loads(session.api.metrics("targets"))
    named = [one["labels"]["replica"] for one in targets if one["labels"]["endpoint"] == endpoint]
    found = {}
    for replica in named:
        scrape = read_scrape(replica, session.api.metrics("replicas", replica), time.monotonic())
        if scrape is not None:
            found[replica] = scrape
    if not found:
        session.api.get("endpoints", endpoint)  # raises NotFound where there is none of that name
        raise NotFound(
            f"{endpoint} has no replica that stands for a simulated device.",
            hint="Deploy with --instance-type ml.inf2.xlarge, and wait until it is in service.",
        )
    return found


def _pids(session: Session, endpoint: str) -> dict[str, int]:
    """Of its replicas, where they run."""
    replicas = session.api.get("endpoints", endpoint)["replicas"]
    return {one["id"]: one["pid"] for one in replicas if "pid" in one}


def _host(period: float, now: _Ticks, before: _Ticks) -> dict[str, object]:
    """This machine, as far as its own files tell."""
    memory = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, size, *_ = line.split()
            memory[name.rstrip(":")] = int(size) * 1024
    total, free = memory["MemTotal"], memory["MemAvailable"]
    return {
        "memory_info": {
            "period": period,
            "memory_total_bytes": total,
            "memory_used_bytes": total - free,
            "swap_total_bytes": memory["SwapTotal"],
            "swap_used_bytes": memory["SwapTotal"] - memory["SwapFree"],
            "error": "",
        },
        "vcpu_usage": {"period": period, **now.usage(before), "error": ""},
    }


_MODES = ("user", "nice", "system", "idle", "io_wait", "irq", "soft_irq")


@dataclass(frozen=True)
class _Ticks:
    """What each vCPU spent its time with since the machine was started, and all of them as ""."""

    spent: Mapping[str, Sequence[int]]
    switches: int

    @staticmethod
    def read() -> _Ticks:
        spent: dict[str, list[int]] = {}
        switches = 0
        with open("/proc/stat", encoding="ascii") as file:
            for line in file:
                word, *numbers = line.split()
                if word == "ctxt":
                    switches = int(numbers[0])
                if word.startswith("cpu"):
                    spent[word.removeprefix("cpu")] = [int(one) for one in numbers[: len(_MODES)]]
        return _Ticks(spent, switches)

    def usage(self, before: _Ticks) -> dict[str, object]:
        """Percent of the time since then."""
        found: dict[str, dict[str, float]] = {}
        for name, ticks in self.spent.items():
            former = before.spent.get(name, [0] * len(ticks))
            passed = [now - then for now, then in zip(ticks, former, strict=True)]
            total = sum(passed) or 1
            shares = [round(100 * one / total, 2) for one in passed]
            found[name] = dict(zip(_MODES, shares, strict=True))
        average = found.pop("")
        switches = self.switches - before.switches
        return {
            "average_usage": average, "usage_data": found, "context_switch_count": switches,
        }  # fmt: skip
