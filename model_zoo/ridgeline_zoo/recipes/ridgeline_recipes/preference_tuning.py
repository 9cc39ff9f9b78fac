"""Learns which of two answers is preferred, by trl's DPOTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from ridgeline_recipes.base_model import load_causal, load_tokenizer, prepare
from ridgeline_recipes.chats import ChatEncoder
from ridgeline_recipes.formats import Chat, Message, Preference
from ridgeline_recipes.job import STOPPED, Job
from ridgeline_recipes.metrics import Metrics
from ridgeline_recipes.options import TuningOptions
from ridgeline_recipes.saving import save_adapter, save_model
from ridgeline_recipes.scoring import log_likelihoods
from ridgeline_recipes.template import training_template
from ridgeline_recipes.training import adapter_config, arguments, scratch_folder, train


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
    template = training_template(tokenizer.chat_template)
    tokenizer.chat_template = template
    encoder = ChatEncoder(tokenizer, job.model, options.max_length)
    model = load_causal(job.model, options.chosen_dtype)
    before = margins(model, encoder, held_out)
    with scratch_folder() as scratch:
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(
                **arguments(options, job, scratch),
                beta=beta,
                max_length=options.max_length,
                # With all weights in training, a second model would have to stay in memory.
                precompute_ref_log_probs=not options.rank,
            ),
            train_dataset=Dataset.from_list([_as_record(each) for each in preferences]),
            processing_class=tokenizer,
            peft_config=adapter_config(options),
        )
        if train(trainer, job, training, metrics).stopped:
            return STOPPED
    merged = save_adapter(trainer.model, job.result)
    tuned = save_model(merged, job.model, job.result, template)
    after = margins(tuned, encoder, held_out)
    metrics.report(
        heldout_pairs=len(held_out),
        heldout_margin_before=_mean(before),
        heldout_margin=_mean(after),
        heldout_preferred_before=sum(margin > 0 for margin in before),
        heldout_preferred=sum(margin > 0 for margin in after),
    )
    metrics.write()
    return 0


def margins(model: Any, encoder: ChatEncoder, pairs: Sequence[Preference]) -> list[float]:
    """For each pair, by how many nats the chosen answer is likelier than the rejected one."""
    chosen, rejected = (
        log_likelihoods(model, encoder.all([_chat(pair, answer) for pair, answer in answered]))
        for answered in (
            [(pair, pair.chosen) for pair in pairs],
            [(pair, pair.rejected) for pair in pairs],
        )
    )
    return [one - other for (one, _), (other, _) in zip(chosen, rejected, strict=True)]


def _chat(pair: Preference, answer: str) -> Chat:
    return Chat((*pair.prompt, Message("assistant", answer)))


def _as_record(pair: Preference) -> dict[str, object]:
    return {
        "prompt": [message.as_json() for message in pair.prompt],
        "chosen": [Message("assistant", pair.chosen).as_json()],
        "rejected": [Message("assistant", pair.rejected).as_json()],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
