"""Our replica beside its peers: the same workloads, run in turn in one session.

    .venv/bin/python tests/bench/serving.py [--rounds 5] [--append] [--only ridgeline llama.cpp]

All servers are started once; the one that is measured runs, the others are frozen (SIGSTOP), so
that none takes a core from it. Every run waits for a quiet machine, and notes what others used.
Writes samples as JSON (default .cache/bench/serving.json), which report.py reads.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from figures import Figures, RunFailed
from machine import CpuShare, describe_machine, tree_peak_mib, wait_for_quiet
from peers import PEERS
from peers.base import REPOSITORY, Model, Peer, PeerFailed, Running
from prepared import prepared_model
from ridgeline_testing import end_tidily_when_told
from workload import Prompts, Workload

RESULTS = REPOSITORY / ".cache" / "bench"
_NOTHING: dict[str, Any] = {"commands": {}, "peak_mib": {}, "samples": []}
WORKLOADS = ("c=1", "c=8", "c=32", "shared")


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One run. ``quiet`` says that a quiet second came before it; cores are averages over it.

    ``idle_share``: of the time with work in hand, the part in which no step computed.
    """

    peer: str
    workload: str
    round: int
    quiet: bool
    server_cores: float
    others_cores: float
    idle_share: float | None
    figures: Figures


def main() -> None:
    end_tidily_when_told()
    arguments = _arguments()
    chosen = [peer for peer in PEERS if _wanted(peer, arguments.only)]
    if arguments.list:
        for peer in chosen:
            print(f"{peer.name}: {peer.missing() or 'ready'}")
        return
    model = Model(prepared_model(arguments.model), RESULTS)
    skipped = {peer.name: reason for peer in chosen if (reason := peer.missing())}
    for name, reason in skipped.items():
        print(f"{name} is skipped: {reason}", file=sys.stderr)
    before = json.loads(arguments.out.read_text()) if arguments.append else _NOTHING
    with contextlib.ExitStack() as stack:
        running: dict[str, Running] = {}
        for peer in chosen:
            if peer.name in skipped:
                continue
            try:
                running[peer.name] = stack.enter_context(_frozen(peer, model))
            except PeerFailed as error:
                skipped[peer.name] = str(error).splitlines()[0]
                print(f"{peer.name} is skipped: {error}", file=sys.stderr)
        first = 1 + max((sample["round"] for sample in before["samples"]), default=-1)
        samples = list(_rounds(running, model, first, arguments))
        peaks = {name: tree_peak_mib(server.pid) for name, server in running.items()}
    report = {
        "machine": dataclasses.asdict(describe_machine()),
        "date": time.strftime("%Y-%m-%d"),
        "commands": before["commands"]
        | {peer.name: peer.command for peer in chosen if peer.name in running},
        "skipped": skipped,
        "peak_mib": {
            name: max(peaks.get(name, 0), before["peak_mib"].get(name, 0))
            for name in {**before["peak_mib"], **peaks}
        },
        "samples": before["samples"] + [dataclasses.asdict(sample) for sample in samples],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1))
    print(f"Samples are in {arguments.out}; report.py makes the tables.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure our replica beside its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of peers")
    parser.add_argument("--workloads", nargs="*", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--quiet-wait", type=float, default=60.0, help="s to wait before a run")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a card, or a folder")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--out", type=Path, default=RESULTS / "serving.json")
    parser.add_argument("--append", action="store_true", help="add rounds to those in --out")
    parser.add_argument("--list", action="store_true", help="say which peers there are")
    return parser.parse_args()


def _wanted(peer: Peer, only: Sequence[str]) -> bool:
    return not only or any(part.lower() in peer.name.lower() for part in only)


def _rounds(
    running: dict[str, Running], model: Model, first: int, arguments: argparse.Namespace
) -> Iterator[Sample]:
    """Every server in turn on the same workload, then the next; each round starts with another."""
    prompts = Prompts.of(model.folder, arguments.seed)
    warm_up = prompts.warm_up()
    for server in running.values():
        with _thawed(server):
            server.run(warm_up, prompts)
    names = list(running)
    for number in range(first, first + arguments.rounds):
        begin = number % max(1, len(names))
        for wanted in arguments.workloads:
            workload = _draw(prompts, wanted)
            for name in names[begin:] + names[:begin]:
                sample = _measure(name, running[name], workload, prompts, number, arguments)
                if sample is not None:
                    print(_line(sample), flush=True)
                    yield sample


def _draw(prompts: Prompts, name: str) -> Workload:
    return prompts.shared() if name == "shared" else prompts.main(int(name.removeprefix("c=")))


def _measure(
    name: str,
    server: Running,
    workload: Workload,
    prompts: Prompts,
    number: int,
    arguments: argparse.Namespace,
) -> Sample | None:
    quiet = wait_for_quiet(arguments.quiet_wait)
    with _thawed(server):
        share, before = CpuShare(server.pid), server.compute_seconds()
        try:
            result = server.run(workload, prompts)
        except (RunFailed, PeerFailed) as error:
            print(f"{name} {workload.name}: {error}", file=sys.stderr)
            return None
        used, others = share.cores()
        idle = _idle_share(before, server.compute_seconds())
    return Sample(name, workload.name, number, quiet, used, others, idle, result)


def _idle_share(
    before: tuple[float, float] | None, after: tuple[float, float] | None
) -> float | None:
    if before is None or after is None:
        return None
    computing, idle = after[0] - before[0], after[1] - before[1]
    return round(idle / (computing + idle), 4)


@contextlib.contextmanager
def _frozen(peer: Peer, model: Model) -> Iterator[Running]:
    with peer.start(model) as server:
        _signal(server, signal.SIGSTOP)
        try:
            yield server
        finally:
            _signal(server, signal.SIGCONT)


@contextlib.contextmanager
def _thawed(server: Running) -> Iterator[None]:
    _signal(server, signal.SIGCONT)
    try:
        yield
    finally:
        _signal(server, signal.SIGSTOP)


def _signal(server: Running, number: signal.Signals) -> None:
    """To the server and its children; one that has ended by itself is noticed when it is run."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, number)


def _line(sample: Sample) -> str:
    shown: dict[str, Any] = dataclasses.asdict(sample.figures)
    return (
        f"{sample.workload:7} {sample.peer:28} {shown['tokens_per_s']:7.1f} tok/s, first token "
        f"{shown['first_token_p50']:7.1f} ms, then {shown['per_token_p50']:6.2f} ms each; cores "
        f"{sample.server_cores:.2f} of it, {sample.others_cores:.2f} of others"
    )


if __name__ == "__main__":
    main()
