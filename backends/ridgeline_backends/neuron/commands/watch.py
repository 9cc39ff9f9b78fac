"""``ridgeline neuron top`` and ``monitor``: what an endpoint's simulated cores do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli._common import DataDir, open_session
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline.session import Session
    from ridgeline_backends.neuron.monitor import Scrape

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="On a simulated instance.")]
Period = Annotated[float, typer.Option("--period", min=0.1, help="Seconds between two looks.")]
Count = Annotated[int, typer.Option("--count", min=0, help="How many looks; 0: until stopped.")]

_BAR = 30


def monitor(
    endpoint: Endpoint, period: Period = 5.0, count: Count = 0, data_dir: DataDir = None
) -> None:
    """Print a line of JSON a period, as neuron-monitor does, and in its schema."""
    from ridgeline_backends.neuron.monitor import report  # prometheus-client: not for --help

    for pairs in _pairs(open_session(data_dir), endpoint, period, count):
        typer.echo(json.dumps(report(endpoint, pairs, _host(period))))


def top(
    endpoint: Endpoint, period: Period = 1.0, count: Count = 0, data_dir: DataDir = None
) -> None:
    """Show how busy each core is and what fills its memory, as neuron-top does; plain text where
    there is no terminal."""
    for pairs in _pairs(open_session(data_dir), endpoint, period, count):
        text = "\n".join(line for now, former in pairs for line in _screen(endpoint, now, former))
        if os.isatty(1):
            typer.echo("\x1b[H\x1b[J", nl=False)
        typer.echo(text)


def _screen(endpoint: str, now: Scrape, former: Scrape) -> Iterator[str]:
    from ridgeline_backends.neuron.devices import instance
    from ridgeline_backends.neuron.monitor import core_memory, step_percentiles, utilisation

    found = instance(now.info["instance_type"])
    percent, memory = utilisation(now, former), core_memory(now)
    yield f"{endpoint}  {found.name} (simulated)  replica {now.replica}"
    yield f"NeuronCore {found.chip.neuroncore} Utilization"
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
    latency = step_percentiles(now, former)
    steps = int(now.since(former, "ridgeline_steps_total"))
    took = (
        f", device latency p50 {latency['p50'] * 1e3:g} ms, p99 {latency['p99'] * 1e3:g} ms at most"
        if latency["p99"]
        else ""
    )
    yield f"Executions: {steps}{took}"


def _pairs(
    session: Session, endpoint: str, period: float, count: int
) -> Iterator[list[tuple[Scrape, Scrape]]]:
    """Every replica now and a period ago. Raises `NotFound`."""
    former = _scrapes(session, endpoint)
    looks = 0
    while not count or looks < count:
        time.sleep(period)
        now = _scrapes(session, endpoint)
        pairs = [(one, former.get(name, one)) for name, one in now.items()]
        yield pairs
        former, looks = now, looks + 1


def _scrapes(session: Session, endpoint: str) -> dict[str, Scrape]:
    from ridgeline_backends.neuron.monitor import read_scrape  # prometheus-client: as above

    targets = json.loads(session.api.metrics("targets"))
    named = [one["labels"]["replica"] for one in targets if one["labels"]["endpoint"] == endpoint]
    found = {}
    for replica in named:
        scrape = read_scrape(replica, session.api.metrics("replicas", replica), time.monotonic())
        if scrape is not None:
            found[replica] = scrape
    if not found:
        raise NotFound(
            f"{endpoint} has no replica that stands for a simulated device.",
            hint="Deploy with --instance-type ml.inf2.xlarge, and wait until it is in service.",
        )
    return found


def _host(period: float) -> dict[str, object]:
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
        "vcpu_usage": {"period": period, **_vcpu_usage(), "error": ""},
    }


def _vcpu_usage() -> dict[str, object]:
    """Shares since the machine was started."""
    names = ("user", "nice", "system", "idle", "io_wait", "irq", "soft_irq")
    found: dict[str, dict[str, float]] = {}
    switches = 0
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            word, *numbers = line.split()
            if word == "ctxt":
                switches = int(numbers[0])
            if word.startswith("cpu"):
                ticks = [int(one) for one in numbers[: len(names)]]
                total = sum(ticks) or 1
                shares = [round(100 * tick / total, 2) for tick in ticks]
                found[word.removeprefix("cpu")] = dict(zip(names, shares, strict=True))
    average = found.pop("")
    return {
        "average_usage": average, "usage_data": found, "context_switch_count": switches,
    }  # fmt: skip
