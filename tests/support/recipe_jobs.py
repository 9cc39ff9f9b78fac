"""Recipes, run as jobs run them: in a process of their own, with a training container's folders."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.images import runtime_named

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "model_zoo/ridgeline_zoo/recipes"
CACHE = REPOSITORY / ".cache/tests"
RUNTIME = "huggingface-pytorch-training"
ENVIRONMENTS = (
    REPOSITORY / ".venvs/recipes/bin/python",
    *sorted(CACHE.glob(f"environments/{RUNTIME}-*/bin/python")),
)


@dataclass(frozen=True)
class Result:
    status: int
    log: str
    failure: str


@dataclass(frozen=True)
class Job:
    """A recipe with its folders. ``python`` runs it."""

    python: str
    root: Path
    script: str
    model: Path

    @property
    def result(self) -> Path:
        return self.root / "model"

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.root / "output/data/metrics.json").read_text())

    def write(self, channel: str, name: str, records: Sequence[object]) -> None:
        folder = self.root / "input" / channel
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    def start(
        self, *arguments: str, before: Callable[[], None] | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        for name in ("model", "output/data"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "SM_CHANNEL_TRAINING": str(self.root / "input/training"),
            "SM_CHANNEL_MODEL": str(self.model),
            "SM_MODEL_DIR": str(self.result),
            "SM_OUTPUT_DIR": str(self.root / "output"),
            "SM_OUTPUT_DATA_DIR": str(self.root / "output/data"),
            "HF_HUB_OFFLINE": "1",
            **variables,
        }
        if (self.root / "input/validation").is_dir():
            environment["SM_CHANNEL_VALIDATION"] = str(self.root / "input/validation")
        if (self.root / "checkpoints").is_dir():
            environment["RIDGELINE_CHECKPOINTS"] = str(self.root / "checkpoints")
        return subprocess.Popen(
            [self.python, str(RECIPES / self.script), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before,
        )

    def ended(self, process: subprocess.Popen[str]) -> Result:
        log, _ = process.communicate(timeout=120)
        failure = self.root / "output/failure"
        return Result(process.returncode, log, failure.read_text() if failure.exists() else "")

    def run(
        self, *arguments: str, before: Callable[[], None] | None = None, **variables: str
    ) -> Result:
        return self.ended(self.start(*arguments, before=before, **variables))


if __name__ == "__main__":
    print(Environments(CACHE).ensure(runtime_named(RUNTIME), print).python)
