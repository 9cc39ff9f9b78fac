"""One training by a trainer of transformers or trl: its arguments, its log, checkpoints from which
it goes on to the same weights, and the end that somebody asks for."""

from __future__ import annotations

import json
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from peft import LoraConfig
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback, TrainerState

from ridgeline_recipes.checkpoints import newest_whole, seal
from ridgeline_recipes.job import Job, say
from ridgeline_recipes.metrics import Metrics
from ridgeline_recipes.options import Options, TuningOptions

_STATE = "trainer_state.json"
_SECONDS = "training_seconds"


def arguments(options: Options, job: Job, scratch: Path, **more: object) -> dict[str, Any]:
    """What every trainer is told. Said in full where the libraries' defaults are for large GPUs."""
    every = -(-options.save_every // options.log_every) * options.log_every
    return {
        "output_dir": str(job.checkpoints or scratch),
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps or -1,
        "learning_rate": options.learning_rate,
        "warmup_steps": options.warmup_share,  # below 1 it is a share
        "per_device_train_batch_size": options.batch_size,
        "per_device_eval_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation,
        "activation_checkpointing": options.gradient_checkpointing,
        "bf16": False,
        "seed": options.seed,
        "data_seed": options.seed,
        # Checkpoints at lines of the log, so that lines after a resume average the same steps.
        "save_strategy": "no" if job.checkpoints is None else "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "logging_steps": options.log_every,
        "logging_strategy": "steps",
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "include_num_input_tokens_seen": "non_padding",
        **more,
    }


def adapter_config(options: TuningOptions) -> LoraConfig | None:
    """The adapter to train; None trains all weights."""
    if not options.rank:
        return None
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


class LinearSchedule:
    """Mixed into a trainer: the learning rate rises to its highest, then falls to the end. The
    libraries' own begins at 0, so that the first step, or the only one, would learn nothing."""

    args: Any
    optimizer: Any
    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            rising: int = self.args.get_warmup_steps(num_training_steps)
            falling = max(1, num_training_steps - rising)

            def share(step: int) -> float:
                """Of the highest rate, for the step after so many."""
                if step < rising:
                    return (step + 1) / rising
                return max(0.0, (num_training_steps - step) / falling)

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler


class Stop:
    """``asked``: somebody asked for the end before the model was saved."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """A signal handler."""
        self.asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """SIGTERM asks for the end: the step that runs is finished, and what is saved is saved."""
    stop = Stop()
    previous = signal.signal(signal.SIGTERM, stop.ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)


def train(trainer: Any, job: Job, training: str, metrics: Metrics, stop: Stop) -> None:
    """Train to the end, or to the one that is asked for. ``training`` is the fingerprint that
    checkpoints carry. Raises RecipeFailed for checkpoints of another training."""
    start = None if job.checkpoints is None else newest_whole(job.checkpoints, training)
    watch = _Watch(training, stop)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    if start is not None and _is_end(start):
        say(f"{start.name} is the end of this training: nothing is left to train")
        trainer._load_from_checkpoint(str(start))  # as train() does, which would go a step beyond
        trainer.state = TrainerState.load_from_json(str(start / _STATE))
    else:
        if start is not None:
            say(f"going on from {start.name}")
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    last = _last_line(trainer.state)
    metrics.report(
        training_seconds=last[_SECONDS],
        train_tokens_per_second=trainer.state.num_input_tokens_seen / last[_SECONDS],
        final_loss=last["loss"],
        peak_memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
    )
    if stop.asked:
        done, of = trainer.state.global_step, trainer.state.max_steps
        say(f"stopped after step {done} of {of}: the model is saved as it is now")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Where a trainer writes that keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
        yield Path(folder)


def _is_end(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / _STATE).read_text())
    return bool(state["global_step"] >= state["max_steps"])


def _last_line(state: TrainerState) -> dict[str, float]:
    """What was logged of the last steps that were; nothing before the first."""
    lines = (line for line in reversed(state.log_history) if "loss" in line)
    return next(lines, {})


class _Watch(TrainerCallback):
    """Lines of the log, seals on checkpoints, and the end that is asked for."""

    def __init__(self, training: str, stop: Stop) -> None:
        self._stop = stop
        self._training = training
        self._tokens_before = 0
        self._seconds_before = 0.0
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tokens_before = state.num_input_tokens_seen
        self._seconds_before = _last_line(state).get(_SECONDS, 0.0)
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._stop.asked:
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"
        if control.should_training_stop:
            control.should_log = True  # whatever log_every says: the last steps are figures too

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", self._training)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        seconds = time.monotonic() - self._began
        # Kept with checkpoints, so that the figures are those of the whole training.
        state.log_history[-1][_SECONDS] = self._seconds_before + seconds
        rate = (state.num_input_tokens_seen - self._tokens_before) / seconds
        say(
            f"step={state.global_step} of={state.max_steps} epoch={state.epoch:.2f} "
            f"loss={logs['loss']:.6g} learning_rate={logs['learning_rate']:.3g} "
            f"tokens_per_second={rate:.4g}"
        )
