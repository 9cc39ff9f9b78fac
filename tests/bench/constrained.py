"""What a grammar costs: the same load at c=32, free and held to a form, in turn.

    .venv/bin/python tests/bench/constrained.py [--rounds 5]

Texts inside JSON strings are what most forms leave open. Words of small letters are the worst case:
a third of the vocabulary is tried again at every place. Writes .cache/bench/constrained.json, which
report.py reads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Mapping

from load import run_workload
from peers.base import REPOSITORY, Model
from peers.ridgeline import BF16
from prepared import prepared_model
from workload import Prompts

RESULTS = REPOSITORY / ".cache" / "bench"
CONCURRENCY = 32
_ITEMS = {"type": "array", "minItems": 300, "items": {"type": "string", "minLength": 8}}
FORMS: Mapping[str, Mapping[str, object]] = {
    "free": {},
    "JSON schema": {"guided_json": _ITEMS},
    "regular expression": {"guided_regex": "( [a-z]+){300}"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a grammar costs.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    folder = prepared_model("smollm2-135m-instruct")
    prompts = Prompts.of(folder, seed=time.time_ns())
    speeds: dict[str, list[float]] = {name: [] for name in FORMS}
    with BF16.start(Model(folder, RESULTS)) as replica:
        targets = {
            name: dataclasses.replace(replica.target, fields=fields)
            for name, fields in FORMS.items()
        }
        for target in targets.values():
            run_workload(target, prompts.warm_up(), prompts)
        for number in range(rounds):
            turn = list(targets.items())
            for name, target in turn if number % 2 else reversed(turn):
                run = run_workload(target, prompts.main(CONCURRENCY, per_client=1), prompts)
                speeds[name].append(run.tokens_per_s)
    ratios = {name: _ratio(found, speeds["free"]) for name, found in speeds.items()}
    report = {"speeds": speeds, "ratios": ratios}
    (RESULTS / "constrained.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def _ratio(held: list[float], free: list[float]) -> float:
    """The median over rounds: runs of one round met the same machine."""
    return round(statistics.median(a / b for a, b in zip(held, free, strict=True)), 3)


if __name__ == "__main__":
    main()
