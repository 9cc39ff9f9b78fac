"""Where each kind of step stands against this machine's memory and its arithmetic.

    .venv/bin/python tests/bench/roofline.py [--model CARD_OR_FOLDER]

Runs steps straight through the runner, and measures what the machine reads from memory and
multiplies at best. Writes .cache/bench/roofline.json; `draw` makes the picture of it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parents[2] / ".cache" / "bench"
CONTEXT = 192
KINDS: dict[str, Literal["int8"] | None] = {"bf16": None, "int8": "int8"}
"""What weights are multiplied as, and the setting that asks for it."""
STEPS = (("decode", 1), ("decode", 8), ("decode", 32), ("prefill", 128), ("prefill", 512))
_WIDTH, _HEIGHT, _MARGIN = 1000, 520, 70
_COLOURS = {"bf16": "#c30", "int8": "#083"}


def main() -> None:
    # Inner imports: report.py draws without torch and without loading a model.
    from prepared import prepared_model

    parser = argparse.ArgumentParser(description="Measure steps against the machine's limits.")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    report = measure(prepared_model(parser.parse_args().model))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "roofline.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def measure(folder: Path) -> dict[str, Any]:
    """Bandwidth (GB/s); by kind of weights its peak (GFLOP/s) and, for each step, FLOP/byte and
    GFLOP/s."""
    bandwidth = _bandwidth()
    peaks = {"bf16": _peak(), "int8": _peak_of_bytes()}
    return {
        "bandwidth_gb_s": bandwidth,
        "kinds": {
            kind: {
                "peak_gflop_s": peak,
                "points": list(_points(folder, kind, bandwidth, peak)),
            }
            for kind, peak in peaks.items()
        },
    }


def _points(folder: Path, kind: str, bandwidth: float, peak: float) -> Iterator[dict[str, Any]]:
    from ridgeline_backends.base import LoadSpec, ModelRunner
    from ridgeline_backends.registry import get_backend

    config = json.loads((folder / "config.json").read_text())
    backend = get_backend("cpu")
    spec = LoadSpec(
        max_model_len=1024, max_num_seqs=32, max_tokens_per_step=512, quantize=KINDS[kind]
    )
    runner = backend.load(backend.compile(folder, backend.plan(config, spec)))
    if not isinstance(runner, ModelRunner):
        raise TypeError(f"{folder} is no text generation model.")
    products = _products(config, kind)
    for phase, size in STEPS:
        rows, sequences, past = (size, size, CONTEXT) if phase == "decode" else (size, 1, 0)
        step = _step(phase, size)
        runner.execute(step)
        seconds = _best(lambda step=step: runner.execute(step), repeats=7)  # type: ignore[misc]
        flop, read = _work(config, kind, rows, sequences, past)
        speed, bound = flop / seconds / 1e9, min(peak, flop / read * bandwidth)
        yield {
            "name": f"decode, batch {size}" if phase == "decode" else f"prefill, {size} tokens",
            "seconds": seconds,
            "products_seconds": products(rows, sequences),
            "bound_seconds": max(flop / peak, read / bandwidth) / 1e9,
            "intensity": flop / read,
            "gflop_s": speed,
            "share": speed / bound,
        }
    runner.close()


def _step(kind: str, size: int) -> Any:
    from ridgeline_backends.base import Chunk, SampleRequest, Step

    sample = SampleRequest(seed=0, index=0, temperature=0.0)

    def chunk(number: int, tokens: int, start: int) -> Chunk:
        blocks = math.ceil((start + tokens) / 16)
        table = tuple(range(number * blocks, (number + 1) * blocks))
        ids = tuple(1000 + 7 * place % 20000 for place in range(tokens))
        return Chunk(sequence_id=str(number), tokens=ids, start=start, blocks=table, sample=sample)

    if kind == "prefill":
        return Step((chunk(0, size, 0),))
    return Step(tuple(chunk(number, 1, CONTEXT) for number in range(size)))


def _work(
    config: dict[str, Any], kind: str, rows: int, sequences: int, past: int
) -> tuple[float, float]:
    """Operations of a step, and bytes it reads at least: weights, and KV in bf16."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    projections = hidden * head_dim * (2 * heads + 2 * kv_heads)
    layer = projections + 3 * hidden * config["intermediate_size"]
    head = hidden * config["vocab_size"]
    keys = past + 1 if past else (rows + 1) / 2
    attention = 4 * rows * keys * heads * head_dim * layers
    flop = 2 * rows * layer * layers + 2 * sequences * head + attention
    cached = 2 * (past + 1 if past else rows) * kv_heads * head_dim * layers * sequences
    # Of int8 every 64 or 128 numbers have a word of four bytes besides.
    weight = 2 if kind == "bf16" else 1 + 4 / _kernels().int8.group
    return flop, weight * (layer * layers + head) + 2 * cached


def _products(config: dict[str, Any], kind: str) -> Callable[[int, int], float]:
    """Seconds of a step's matrix products alone, for so many rows and rows of the head. Weights are
    as many and as large as the model's, so that no cache holds them."""
    from ridgeline_backends.models.config import decoder_config

    model = decoder_config(config)
    layer = list(model.linear_shapes.values())
    run = _multiplied([*layer * model.layers, (model.vocab_size, model.hidden)], kind)

    def seconds(rows: int, heads: int) -> float:
        counts = [rows] * (len(layer) * model.layers) + [heads]
        run(counts)
        return _best(lambda: run(counts), repeats=7)

    return seconds


def _kernels() -> Any:
    from ridgeline_backends.cpu.kernels.library import library

    kernels = library()
    if kernels is None:
        raise SystemExit("There are no native kernels to measure: ridgeline doctor says why.")
    return kernels


def _multiplied(shapes: Sequence[tuple[int, int]], kind: str) -> Callable[[Sequence[int]], None]:
    """Multiplies by weights of these shapes, one after the other, each by so many rows."""
    import torch

    from ridgeline_backends.cpu.kernels.packing import pack

    kernels = _kernels()
    dtype = torch.bfloat16 if kind == "bf16" else torch.int8
    weights = (torch.ones(shape, dtype=torch.bfloat16) for shape in shapes)
    packed = [pack(weight, dtype, int8=kernels.int8) for weight in weights]
    matrices = [one.struct() for one in packed]
    threads = torch.get_num_threads()

    def run(counts: Sequence[int]) -> None:
        most = max(counts)
        room = max(kernels.linear_scratch_bytes(matrix, most, threads) for matrix in matrices)
        scratch = torch.empty(room + 64, dtype=torch.uint8)
        aligned = -(-scratch.data_ptr() // 64) * 64
        x = torch.ones(most, max(one.k for one in packed))
        y = torch.empty(max(one.n * count for one, count in zip(packed, counts, strict=True)))
        for count, matrix in zip(counts, matrices, strict=True):
            kernels.linear(matrix, x.data_ptr(), y.data_ptr(), count, threads, aligned)

    return run


def _peak_of_bytes() -> float:
    """GOP/s of our own products of 8-bit numbers, with weights that caches hold: torch has none
    that are fast."""
    rows, shape = 48, (4096, 576)
    run = _multiplied([shape], "int8")
    run([rows])
    return 2 * rows * math.prod(shape) / _best(lambda: run([rows]), repeats=50) / 1e9


def _bandwidth() -> float:
    """GB/s at which all cores read memory that no cache holds."""
    import torch

    data = torch.ones(2**28, dtype=torch.float32)
    return data.numel() * 4 / _best(data.sum, repeats=5) / 1e9


def _peak() -> float:
    """GFLOP/s of the best of torch's matrix products, in several sizes."""
    import torch
    from machine import describe_machine

    # Without such instructions torch multiplies bf16 hundreds of times slower than float32.
    fast = {"avx512_bf16", "amx_bf16", "bf16"} & set(describe_machine().features)
    speeds = []
    for dtype in (torch.float32, torch.bfloat16) if fast else (torch.float32,):
        for size in (512, 1024, 2048):
            left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
            torch.mm(left, right)
            seconds = _best(lambda a=left, b=right: torch.mm(a, b), repeats=5)  # type: ignore[misc]
            speeds.append(2 * size**3 / seconds / 1e9)
    return max(speeds)


def _best(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the quickest of several calls: what else the machine does only adds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def draw(report: dict[str, Any]) -> str:
    """The picture as SVG: both axes logarithmic, the roofs, and a labelled point for each step."""
    bandwidth, kinds = report["bandwidth_gb_s"], report["kinds"]
    points = [point for kind in kinds.values() for point in kind["points"]]
    # To the right there is room for the last point's label.
    low, high = 0.5, 2 ** math.ceil(math.log2(max(p["intensity"] for p in points)) + 2)
    bottom = 2 ** math.floor(math.log2(min(p["gflop_s"] for p in points)) - 1)
    top = 2 ** math.ceil(math.log2(max(kind["peak_gflop_s"] for kind in kinds.values())) + 1)

    def x(value: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * math.log(value / low) / math.log(high / low)

    def y(value: float) -> float:
        share = math.log(value / bottom) / math.log(top / bottom)
        return _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * share

    def parts() -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="13">'
        )
        yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        for tick in _powers(low, high):
            yield _text(x(tick), _HEIGHT - _MARGIN + 20, f"{tick:g}", "middle")
            yield _line(x(tick), _MARGIN, x(tick), _HEIGHT - _MARGIN, "#eee")
        for tick in _powers(bottom, top):
            yield _text(_MARGIN - 8, y(tick) + 4, f"{tick:g}", "end")
            yield _line(_MARGIN, y(tick), _WIDTH - _MARGIN, y(tick), "#eee")
        start = max(low, bottom / bandwidth)
        for name, kind in kinds.items():
            peak = kind["peak_gflop_s"]
            ridge = peak / bandwidth
            yield _line(x(start), y(start * bandwidth), x(ridge), y(peak), "#246")
            yield _line(x(ridge), y(peak), x(high), y(peak), "#246")
            yield _text(x(high), y(peak) - 8, f"{name} products {peak:.0f} GOP/s", "end")
            for point in kind["points"]:
                across, up = x(point["intensity"]), y(point["gflop_s"])
                yield f'<circle cx="{across:.1f}" cy="{up:.1f}" r="5" fill="{_COLOURS[name]}"/>'
                words = f"{name} {point['name']}: {point['share']:.0%}"
                yield _text(across + 9, up + 14, words, "start")
        yield _text(_MARGIN + 8, _MARGIN + 16, f"memory {bandwidth:.1f} GB/s (slope)", "start")
        yield _text(_WIDTH / 2, _HEIGHT - 20, "operations per byte read", "middle")
        yield _text(_MARGIN, _MARGIN - 20, "GOP/s", "middle")
        yield "</svg>"

    return "\n".join(parts()) + "\n"


def _powers(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    return [2.0**power for power in range(first, last + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="1.5"/>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


if __name__ == "__main__":
    main()
