"""Recipes beside bare scripts of the same libraries: what both reach, and how long they take.

    .venv/bin/python tests/bench/recipes.py                  all four, in about ten minutes
    .venv/bin/python tests/bench/recipes.py dpo classify     some

Both see the same records of examples/quellbrook, hold out the same, and train as many steps; they
run in turns. Needs an environment with trl and peft (``make recipes``). Nothing else may run
meanwhile. Prints a table for docs/fine-tuning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from prepared import prepared_model
from recipe_jobs import ENVIRONMENTS, RECIPES, REPOSITORY

EXAMPLES = REPOSITORY / "examples/quellbrook"
BARE = Path(__file__).parent / "bare"
SHOWN = (
    "training_seconds",
    "train_tokens_per_second",
    "heldout_margin_before",
    "heldout_margin",
    "heldout_perplexity_before",
    "heldout_perplexity",
    "heldout_accuracy",
    "majority_accuracy",
)


@dataclass(frozen=True)
class Comparison:
    """``held_out``: a file of the examples, or how many of the last records of ``training``."""

    model: str
    training: str
    held_out: str | int
    steps: int
    options: Mapping[str, str]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The folders of what is learned and of what is held out."""
        lines = (EXAMPLES / self.training).read_text().splitlines(keepends=True)
        if isinstance(self.held_out, int):
            seen = lines[: len(lines) - self.held_out]
            unseen = lines[len(seen) :]
        else:
            seen, unseen = lines, (EXAMPLES / self.held_out).read_text().splitlines(keepends=True)
        folders = folder / "training", folder / "held_out"
        for path, part in zip(folders, (seen, unseen), strict=True):
            path.mkdir()
            (path / "train.jsonl").write_text("".join(part))
        return folders


CHAT = "smollm2-135m-instruct"
FP32 = {"dtype": "fp32"}
COMPARISONS = {
    "sft": Comparison(CHAT, "train.jsonl", 0, 10, {"general_share": "0", **FP32}),
    "dpo": Comparison(CHAT, "pref.jsonl", 10, 23, FP32),
    "pretrain": Comparison(
        CHAT, "texts.jsonl", "texts_heldout.jsonl", 6, {"learning_rate": "3e-4", **FP32}
    ),
    "classify": Comparison("all-minilm-l6-v2", "topics.jsonl", "topics_heldout.jsonl", 76, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="fewer than usual, for a try")
    given = parser.parse_args()
    if unknown := {*given.recipes} - {*COMPARISONS}:
        parser.error(f"no recipe {', '.join(sorted(unknown))}; there are {', '.join(COMPARISONS)}")
    print("| recipe | figure | as a recipe | bare script |\n| --- | --- | --- | --- |")
    for name in given.recipes or COMPARISONS:
        comparison = COMPARISONS[name]
        if given.steps:
            comparison = replace(comparison, steps=given.steps)
        found = [(recipe(name, comparison), bare(name, comparison)) for _ in range(given.rounds)]
        for figure in SHOWN:
            pairs = [(one[figure], other[figure]) for one, other in found if figure in other]
            if pairs:
                columns = (
                    ", ".join(f"{value:.4g}" for value in side) for side in zip(*pairs, strict=True)
                )
                print(f"| `{name}` | {figure} | {' | '.join(columns)} |", flush=True)


def recipe(name: str, comparison: Comparison) -> Mapping[str, float]:
    """What the recipe's own script reports, run as a job runs it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        training, held_out = comparison.write(folder)
        environment = {
            "SM_CHANNEL_TRAINING": str(training),
            "SM_CHANNEL_MODEL": str(prepared_model(comparison.model)),
            "SM_MODEL_DIR": str(folder / "model"),
            "SM_OUTPUT_DIR": str(folder / "output"),
            "SM_OUTPUT_DATA_DIR": str(folder / "data"),
        }
        if comparison.held_out:
            environment["SM_CHANNEL_VALIDATION"] = str(held_out)
        options = {"max_steps": str(comparison.steps), **comparison.options}
        arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
        _run([str(RECIPES / f"{name}.py"), *arguments], environment)
        figures: dict[str, float] = json.loads((folder / "data/metrics.json").read_text())
        return figures


def bare(name: str, comparison: Comparison) -> Mapping[str, float]:
    """What the bare script reports in its last line."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = map(str, comparison.write(Path(scratch)))
        model = str(prepared_model(comparison.model))
        said = _run([str(BARE / f"{name}.py"), model, *folders, str(comparison.steps)], {})
        figures: dict[str, float] = json.loads(said.splitlines()[-1])
        return figures


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    python = next((str(path) for path in ENVIRONMENTS if path.exists()), None)
    if python is None:
        sys.exit("No environment with trl and peft: `make recipes` makes one.")
    done = subprocess.run(
        [python, *command],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
