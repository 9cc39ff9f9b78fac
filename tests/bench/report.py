"""docs/benchmarks.md and docs/img/roofline.svg from what the measuring scripts left.

    .venv/bin/python tests/bench/report.py
    .venv/bin/python tests/bench/report.py --serving TITLE FILE

Reads .cache/bench/{serving,quality,cold_start,roofline,jobs}.json; what was not measured is left
out of the document, which says so. The second writes what was measured of serving into a document
of its own: of another machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from roofline import draw

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / ".cache" / "bench"
DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
PICTURE = REPOSITORY / "docs" / "img" / "roofline.svg"
QUIET_CORES = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description="Write down what was measured.")
    parser.add_argument("--serving", nargs=2, metavar=("TITLE", "FILE"))
    asked = parser.parse_args()
    if asked.serving is not None:
        title, path = asked.serving
        _, _, *measured = _serving(json.loads((RESULTS / "serving.json").read_text()))
        lines = [f"# {title}", "", "Written by `tests/bench/report.py`.", "", *measured]
        Path(path).write_text("\n".join(lines) + "\n")
        print(f"Written: {path}")
        return
    parts = {
        name: json.loads(path.read_text())
        for name in ("serving", "constrained", "quality", "cold_start", "roofline", "jobs")
        if (path := RESULTS / f"{name}.json").is_file()
    }
    if "roofline" in parts:
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        PICTURE.write_text(draw(parts["roofline"]))
    DOCUMENT.write_text("\n".join(document(parts)) + "\n")
    print(f"Written: {DOCUMENT}")


def document(parts: dict[str, Any]) -> Iterator[str]:
    """The lines of the document."""
    yield "# Benchmarks"
    yield ""
    yield "Written by `tests/bench/report.py`; `make bench` measures everything again."
    for other in sorted(DOCUMENT.parent.glob("benchmarks-*.md")):
        title = other.read_text().partition("\n")[0].removeprefix("# ")
        yield f"On another machine: [{title}]({other.name})."
    sections = {
        "serving": _serving,
        "constrained": _constrained,
        "quality": _quality,
        "cold_start": _cold_start,
        "roofline": _roofline,
        "jobs": _jobs,
    }
    for name, section in sections.items():
        yield ""
        if name in parts:
            yield from section(parts[name])
        else:
            yield f"Not measured yet: {name.replace('_', ' ')} (`tests/bench/{name}.py`)."
    yield ""
    yield from _gpu()


def _serving(report: dict[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield "## Serving"
    yield ""
    yield (
        f"{machine['cpu']} ({', '.join(machine['features'])}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {report['date']}. SmolLM2-135M-Instruct, greedy, 128 tokens "
        "in and 128 out; *shared*: 32 requests of 512 common and 32 own tokens in, 64 out. "
        f"Medians of the runs in which other jobs took less than {QUIET_CORES} cores (of all runs "
        "where fewer than half were so quiet: marked †), servers in turn, the others frozen. "
        f"Rounds: {_rounds(report['samples'])}. Prompts of random "
        "words make the model repeat itself, which flatters prompt lookup, the default: the rows "
        "without it are what other texts may expect."
    )
    yield ""
    yield "Output tokens per second (time to first token, time per further token, in ms):"
    yield ""
    samples = report["samples"]
    workloads = _in_order(sample["workload"] for sample in samples)
    peers = _in_order(sample["peer"] for sample in samples)
    yield from _table(
        ["", *workloads, "peak memory"],
        [
            [peer, *(_cell(_chosen(samples, peer, work)) for work in workloads)]
            + [f"{report['peak_mib'][peer] / 1024:.2f} GiB"]
            for peer in peers
        ],
    )
    ours, others = _split(peers)
    for mine in ours:
        yield ""
        yield f"{mine} over each, by the medians:"
        yield ""
        yield from _table(
            ["", *workloads],
            [[o, *(_ratio(samples, mine, o, work) for work in workloads)] for o in others],
        )
    yield ""
    for mine in ours:
        idle = [f"{work} {share}" for work in workloads if (share := _idle(samples, mine, work))]
        yield f"- Idle share of the compute threads, {mine}: {', '.join(idle) or 'not known'}."
    for name, reason in report["skipped"].items():
        yield f"- {name} was skipped: {reason}."
    yield ""
    yield "How each was started:"
    yield ""
    for name, command in report["commands"].items():
        yield f"- {name}: `{command}`"


def _rounds(samples: Sequence[Any]) -> str:
    """How often the workloads were run."""
    each = {work: set[int]() for work in _in_order(sample["workload"] for sample in samples)}
    for sample in samples:
        each[sample["workload"]].add(sample["round"])
    least, most = min(map(len, each.values())), max(map(len, each.values()))
    return str(most) if least == most else f"{least} to {most}"


def _chosen(samples: Sequence[Any], peer: str, workload: str) -> tuple[list[Any], bool]:
    """The samples to take medians of, and whether they were quiet."""
    found = [s for s in samples if s["peer"] == peer and s["workload"] == workload]
    quiet = [s for s in found if s["others_cores"] < QUIET_CORES]
    return (quiet, True) if len(quiet) * 2 >= len(found) else (found, False)


def _median(samples: Sequence[Any], figure: str) -> float:
    return statistics.median(sample["figures"][figure] for sample in samples)


def _cell(chosen: tuple[list[Any], bool]) -> str:
    samples, quiet = chosen
    if not samples:
        return "-"
    first, each = _median(samples, "first_token_p50"), _median(samples, "per_token_p50")
    mark = "" if quiet else " †"
    return f"{_median(samples, 'tokens_per_s'):.0f} ({first:.0f} / {each:.1f}){mark}"


def _ratio(samples: Sequence[Any], mine: str, other: str, workload: str) -> str:
    ours, _ = _chosen(samples, mine, workload)
    theirs, _ = _chosen(samples, other, workload)
    if not ours or not theirs:
        return "-"
    return f"{_median(ours, 'tokens_per_s') / _median(theirs, 'tokens_per_s'):.2f}"


def _idle(samples: Sequence[Any], peer: str, workload: str) -> str:
    chosen, _ = _chosen(samples, peer, workload)
    shares = [sample["idle_share"] for sample in chosen if sample["idle_share"] is not None]
    return f"{statistics.median(shares):.1%}" if shares else ""


def _split(peers: Sequence[str]) -> tuple[list[str], list[str]]:
    ours = [peer for peer in peers if peer.startswith("Ridgeline")]
    return ours, [peer for peer in peers if peer not in ours]


def _constrained(report: dict[str, Any]) -> Iterator[str]:
    yield "## What a grammar costs"
    yield ""
    yield (
        "Output tokens per second at c=32, medians of "
        f"{len(report['speeds']['free'])} runs in turn, and the median of their ratios to free "
        "output in the same round (`tests/bench/constrained.py`):"
    )
    yield ""
    yield from _table(
        ["output held to", "tok/s", "of free output"],
        [
            [name, f"{statistics.median(found):.0f}", f"{report['ratios'][name]:.2f}"]
            for name, found in report["speeds"].items()
        ],
    )


def _quality(report: dict[str, Any]) -> Iterator[str]:
    yield "## Quality"
    yield ""
    yield (
        f"Perplexity over {report['tokens']} tokens of `tests/data/{report['text']}` in windows of "
        f"{report['window']}. *Same token*: of {report['steps']} places of the text, those where "
        "the likeliest next token is that of the first kind. *Alike*: of "
        f"{report['prompts']} greedy "
        f"answers of {report['answer_tokens']} tokens, the part before the first difference, and "
        "the answers without any. Scales wider by 0.4% or 1%, as good as these, move the "
        "perplexity of int8 by up to 2%: smaller differences say nothing."
    )
    yield ""
    yield from _table(
        ["", "perplexity", "same token", "alike", "identical answers"],
        [
            [name, f"{row['perplexity']:.3f}"]
            + [f"{row[share]:.1%}" for share in ("agreement", "alike", "identical")]
            for name, row in report["kinds"].items()
        ],
    )
    for name, reason in report["skipped"].items():
        yield f"\n{name} was skipped: {reason}."


def _cold_start(report: dict[str, Any]) -> Iterator[str]:
    yield "## Cold start"
    yield ""
    yield (
        f"Process start to the first token over HTTP, against {report['bare_import_s']:.2f} s to "
        "start Python and import what the replica imports (median of three)."
    )
    yield ""
    stages = _in_order(name for start in report["starts"] for name in start["stages"])
    yield from _table(
        ["start", *stages, "first token", "above the import"],
        [
            [start["name"], *(f"{start['stages'].get(name, 0):.2f} s" for name in stages)]
            + [f"{start['first_token_s']:.2f} s"]
            + [f"{start['first_token_s'] - report['bare_import_s']:.2f} s"]
            for start in report["starts"]
        ],
    )


def _roofline(report: dict[str, Any]) -> Iterator[str]:
    yield "## Roofline"
    yield ""
    yield "![Where each step stands against memory and compute](img/roofline.svg)"
    yield ""
    yield (
        f"Measured on this machine: memory reads {report['bandwidth_gb_s']:.1f} GB/s. Each point "
        "is a step through the runner."
    )
    peaks = {
        "bf16": "torch's matrix products of floats (a kernel may do better than that)",
        "int8": "our own products of 8-bit numbers with weights that caches hold",
    }
    for kind, found in report["kinds"].items():
        yield ""
        yield f"{kind}; the arithmetic is {found['peak_gflop_s']:.0f} GOP/s, {peaks[kind]}:"
        yield ""
        yield from _table(
            ["step", "OP/byte", "GOP/s", "of the bound", "ms"]
            + ["bound", "products alone", "the rest"],
            [
                [p["name"], f"{p['intensity']:.1f}", f"{p['gflop_s']:.1f}", f"{p['share']:.0%}"]
                + [
                    f"{p[part] * 1000:.1f}"
                    for part in ("seconds", "bound_seconds", "products_seconds")
                ]
                + [f"{(p['seconds'] - p['products_seconds']) * 1000:.1f}"]
                for p in found["points"]
            ],
        )
    yield ""
    yield (
        "*Products alone* are the step's matrix products measured by themselves, with as many "
        "weights; *the rest* is attention, norms, rotations, the embedding and the ends of "
        "phases. The bound is the larger of two: the time to read weights and KV once, and the "
        "time of the arithmetic."
    )
    yield ""


def _jobs(report: dict[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield "## Jobs"
    yield ""
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {report['date']}; medians of runs in turn "
        "(`tests/bench/jobs.py`)."
    )
    yield ""
    yield from _table(
        ["", "job", "beside", "ratio"],
        [row for name, rows in _JOB_ROWS.items() if name in report for row in rows(report[name])],
    )


def _pair(name: str, job: Sequence[float], beside: Sequence[float], unit: str) -> list[str]:
    mine, other = statistics.median(job), statistics.median(beside)
    return [name, f"{mine:.3g} {unit}", f"{other:.3g} {unit}", f"{mine / other:.3f}"]


def _start_rows(found: Any) -> list[list[str]]:
    return [
        [f"CreateTrainingJob to the script's first line, {kind}", f"{seconds:.2f} s", "-", "-"]
        for kind in ("cold", "warm")
        for seconds in [statistics.median(found[f"{kind}_s"])]
    ]


def _overhead_rows(found: Any) -> list[list[str]]:
    bare = found["bare_s"]
    spread = f"{min(bare):.0f} to {max(bare):.0f} s alone"
    return [
        _pair(f"a script, beside `python train.py` ({spread})", found["job_s"], bare, "s"),
        _pair("the same with the job around it", found["whole_job_s"], bare, "s"),
    ]


def _queue_rows(found: Any) -> list[list[str]]:
    count, seconds = found["jobs"], found["seconds"]
    return [[f"{count} queued jobs", f"{seconds:.0f} s, {count / seconds:.2f} a second", "-", "-"]]


def _line_rows(found: Any) -> list[list[str]]:
    rate = found["lines"] / found["seconds"]
    return [[f"{found['lines']:,} lines of log, none lost", f"{rate:,.0f} a second", "-", "-"]]


def _worker_rows(found: Any) -> list[list[str]]:
    words = "a step of DDP, 2 processes, beside 1 with 2 threads"
    return [_pair(words, found["two_processes_s"], found["one_process_s"], "s")]


def _tuning_rows(found: Any) -> list[list[str]]:
    words = "fine-tuning, beside a bare script of trl"
    return [_pair(words, found["job_tokens_per_s"], found["bare_tokens_per_s"], "tok/s")]


_JOB_ROWS = {
    "start": _start_rows,
    "overhead": _overhead_rows,
    "queue": _queue_rows,
    "lines": _line_rows,
    "workers": _worker_rows,
    "tuning": _tuning_rows,
}


def _gpu() -> Iterator[str]:
    yield "## GPU: not measured yet"
    yield ""
    yield "The cuda backend has not run on a GPU; all that is known of it was tested on a CPU."
    yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _in_order(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    main()
