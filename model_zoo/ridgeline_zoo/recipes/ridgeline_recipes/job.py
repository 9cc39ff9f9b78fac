"""Where a recipe finds its inputs and leaves its results: the environment of a SageMaker training
container. It runs as well by hand, with these variables set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ridgeline_recipes.failing import RecipeFailed

STOPPED = 143
"""The exit status of a recipe that was asked to stop: 128 + SIGTERM."""

_OPT_ML = "/opt/ml"
_CHANNEL = "SM_CHANNEL_"
# "code" is what JumpStart's clients hand scripts over in; nothing here reads it.
_CHANNELS = ("training", "validation", "model", "code")


@dataclass(frozen=True)
class Job:
    """``model`` is the base model's folder. ``checkpoints`` is None where nobody keeps them."""

    training: Path
    model: Path
    validation: Path | None
    result: Path
    output: Path
    checkpoints: Path | None
    failure: Path

    def require_model(self) -> None:
        """Raises RecipeFailed unless a base model is there."""
        missing = [
            name for name in ("config.json", "tokenizer.json") if not (self.model / name).is_file()
        ]
        if not any(self.model.glob("*.safetensors")):
            missing.append("*.safetensors")
        if missing:
            raise RecipeFailed(
                f"Channel 'model' has no {', '.join(missing)} ({self.model}). Give the folder of "
                "the base model: a card of the zoo, or a model saved by transformers."
            )


def job_of(environment: Mapping[str, str]) -> Job:
    """The job that SM_* variables describe."""
    inputs = f"{_OPT_ML}/input/data"
    checkpoints = Path(environment.get("RIDGELINE_CHECKPOINTS", f"{_OPT_ML}/checkpoints"))
    validation = environment.get("SM_CHANNEL_VALIDATION")
    return Job(
        training=Path(environment.get("SM_CHANNEL_TRAINING", f"{inputs}/training")),
        model=Path(environment.get("SM_CHANNEL_MODEL", f"{inputs}/model")),
        validation=Path(validation) if validation else None,
        result=Path(environment.get("SM_MODEL_DIR", f"{_OPT_ML}/model")),
        output=Path(environment.get("SM_OUTPUT_DATA_DIR", f"{_OPT_ML}/output/data")),
        checkpoints=checkpoints if checkpoints.is_dir() else None,
        failure=Path(environment.get("SM_OUTPUT_DIR", f"{_OPT_ML}/output")) / "failure",
    )


def require_known_channels(environment: Mapping[str, str]) -> None:
    """Raises RecipeFailed for a channel that no recipe reads."""
    names = (name for name in sorted(environment) if name.startswith(_CHANNEL))
    for channel in (name.removeprefix(_CHANNEL).lower() for name in names):
        if channel not in _CHANNELS:
            close = get_close_matches(channel, _CHANNELS, n=1)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            raise RecipeFailed(
                f"This recipe reads no channel {channel!r}. {meant}"
                "It reads: training, validation, model."
            )


def main(recipe: Callable[[Job, Sequence[str]], int]) -> None:
    """Run a recipe as a script, with its status as the exit code. What is the user's to correct
    goes to the failure file, which becomes the reason of the job."""
    job = job_of(os.environ)
    try:
        require_known_channels(os.environ)
        status = recipe(job, sys.argv[1:])
    except RecipeFailed as error:
        job.failure.parent.mkdir(parents=True, exist_ok=True)
        job.failure.write_text(f"{error}\n")
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - a script's log is its output
        status = 1
    sys.exit(status)


def say(line: str) -> None:
    """One line of the log, at once."""
    print(line, flush=True)  # noqa: T201 - a script's log is its output
