"""Tokens per second of simulated NeuronCores beside those of the processor backend.

    .venv/bin/python tests/bench/simulated.py [--model CARD_OR_FOLDER] [--tp 2] [--rounds 5]

Both models are in one process, and each round asks one engine after the other the same, so that
what else the machine does meets both alike. The processor backend is measured without guesses,
which compiled programs have none of, and as it is by default, with prompt lookup. Prints JSON: the
median of each, and of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe_machine
from prepared import prepared_model

from ridgeline_backends.base import LoadSpec, ModelRunner
from ridgeline_backends.engine import EngineOutput, LLMEngine, SamplingParams
from ridgeline_backends.engine.drafting import PromptLookup
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.registry import get_backend

CASES = {
    "1 sequence": (1, 64, 64),
    "8 sequences": (8, 64, 64),
    "a prompt of 500": (1, 500, 1),
}
"""Sequences, tokens of each prompt, tokens of each answer. Of the last case prompt tokens count."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure simulated cores beside the processor.")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    folder = prepared_model(chosen.model)
    processor = load(folder, "cpu", 1)
    cores = load(folder, "neuron", chosen.tp)
    makers: dict[str, Callable[[], LLMEngine]] = {
        "neuron": lambda: LLMEngine(cores),
        "processor": lambda: LLMEngine(processor),
        "processor, guessing": lambda: LLMEngine(
            processor, speculation=Speculation(PromptLookup(), most=8)
        ),
    }
    report: dict[str, object] = {"cpu": describe_machine().cpu, "tp": chosen.tp}
    for name, (sequences, prompt, answer) in CASES.items():
        found: dict[str, list[float]] = {one: [] for one in makers}
        for number in range(-1, chosen.rounds):
            for one, make in makers.items():
                speed = tokens_per_second(make(), sequences, prompt, answer, number)
                # The first round prepares programs.
                if number >= 0:
                    found[one].append(speed)
        report[name] = summary(found)
    print(json.dumps(report, indent=1))


def load(folder: Path, name: str, degree: int) -> ModelRunner:
    backend = get_backend(name)
    spec = LoadSpec(
        max_model_len=1024, max_num_seqs=8, tensor_parallel=degree, instance="inf2.xlarge"
    )
    config = json.loads((folder / "config.json").read_text())
    runner = backend.load(backend.compile(folder, backend.plan(config, spec)))
    if not isinstance(runner, ModelRunner):
        raise TypeError(f"{folder} is no text generation model.")
    return runner


def tokens_per_second(
    engine: LLMEngine, sequences: int, prompt: int, answer: int, seed: int
) -> float:
    """Of a batch from its arrival to its end: of answers, or of prompts if those are one token."""
    params = SamplingParams(max_tokens=answer, temperature=0, ignore_eos=True)
    done: list[EngineOutput] = []
    begin = time.perf_counter()
    for number in range(sequences):
        tokens = [
            1000 + (7919 * (seed + 2) * (number + 1) * place) % 20000 for place in range(prompt)
        ]
        engine.submit(str(number), tokens, params, done.append)
    while engine.step():
        pass
    seconds = time.perf_counter() - begin
    given = sum(len(one.token_ids) for one in done)
    if given != sequences * answer:
        raise RuntimeError(f"{given} tokens instead of {sequences * answer}: {done[-1]}")
    return (sequences * prompt if answer == 1 else given) / seconds


def summary(found: dict[str, list[float]]) -> dict[str, float]:
    """Median speeds, and how the cores stand to the processor within a round."""
    report = {
        f"{one}, tokens/s": round(statistics.median(speeds), 1) for one, speeds in found.items()
    }
    for one in ("processor", "processor, guessing"):
        ratios = [a / b for a, b in zip(found["neuron"], found[one], strict=True)]
        report[f"neuron to {one}"] = round(statistics.median(ratios), 3)
        report[f"neuron to {one}, lowest"] = round(min(ratios), 3)
    return report


if __name__ == "__main__":
    main()
