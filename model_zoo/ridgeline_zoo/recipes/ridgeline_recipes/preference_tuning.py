"""Learns which of two answers is preferred, by trl's DPOTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from ridgeline_recipes.base_model import load_causal, load_tokenizer, prepare
from ridgeline_recipes.chats import ChatEncoder
from ridgeline_recipes.cutting import Row
from ridgeline_recipes.formats import Message, Preference
from ridgeline_recipes.job import STOPPED, Job
from ridgeline_recipes.metrics import Metrics
from ridgeline_recipes.options import TuningOptions
from ridgeline_recipes.saving import save_tuned
from ridgeline_recipes.scoring import log_likelihoods
from ridgeline_recipes.template import training_template
from ridgeline_recipes.training import (
    LinearSchedule,
    adapter_config,
    arguments,
    scratch_folder,
    stoppable,
    train,
)


class _Trainer(LinearSchedule, DPOTrainer):  # type: ignore[misc]  # trl has no types
    """Of trl, with our schedule."""


def tune_on_preferences(
    job: Job,
    options: TuningOptions,
    beta: float,
    preferences: Sequence[Preference],
    held_out: Sequence[Preference],
    training: str,
) -> int:
    """Train, save, and report the margin on ``held_out``; returns the exit status."""
    prepare(options)
    metrics = Metrics(job.output)
    tokenizer = load_tokenizer(job.model)
    template = tokenizer.chat_template = training_template(tokenizer.chat_template)
    encoder = ChatEncoder(tokenizer, job.model, options.max_length)
    learned = encoder.pairs(preferences, "pairs", required=True)
    unseen = encoder.pairs(held_out, "held-out pairs", required=False)
    model = load_causal(job.model, options.chosen_dtype)
    before = margins(model, unseen)
    with stoppable() as stop:
        with scratch_folder() as scratch:
            trainer = _Trainer(
                model=model,
                args=DPOConfig(
                    **arguments(options, job, scratch),
                    beta=beta,
                    max_length=options.max_length,
                    # With all weights in training, a second model would have to stay in memory.
                    precompute_ref_log_probs=not options.rank,
                ),
                train_dataset=Dataset.from_list([_as_record(each.record) for each in learned]),
                processing_class=tokenizer,
                peft_config=adapter_config(options),
            )
            train(trainer, job, training, metrics, stop)
        tuned = save_tuned(trainer.model, job.model, job.result, template)
        metrics.write()
    if stop.asked:
        return STOPPED
    after = margins(tuned, unseen)
    metrics.report(heldout_pairs=len(unseen))
    if unseen:
        metrics.report(
            heldout_margin_before=_mean(before),
            heldout_margin=_mean(after),
            heldout_preferred_before=sum(margin > 0 for margin in before),
            heldout_preferred=sum(margin > 0 for margin in after),
        )
    metrics.write()
    return 0


def margins(model: Any, pairs: Sequence[Row[Preference]]) -> list[float]:
    """For each pair, by how many nats the chosen answer is likelier than the rejected one."""
    chosen, rejected = (
        log_likelihoods(model, [pair.encoded[number] for pair in pairs]) for number in (0, 1)
    )
    return [one - other for (one, _), (other, _) in zip(chosen, rejected, strict=True)]


def _as_record(pair: Preference) -> dict[str, object]:
    return {
        "prompt": [message.as_json() for message in pair.prompt],
        "chosen": [Message("assistant", pair.chosen).as_json()],
        "rejected": [Message("assistant", pair.rejected).as_json()],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
