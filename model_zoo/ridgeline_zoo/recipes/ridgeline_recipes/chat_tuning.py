"""Learns chats by trl's SFTTrainer, and asks questions before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from ridgeline_recipes.answering import Answer, ask, lost, right, write_answers
from ridgeline_recipes.base_model import load_causal, load_tokenizer, prepare
from ridgeline_recipes.chats import ChatEncoder
from ridgeline_recipes.formats import Chat, Question
from ridgeline_recipes.job import STOPPED, Job
from ridgeline_recipes.metrics import Metrics
from ridgeline_recipes.options import TuningOptions
from ridgeline_recipes.saving import save_tuned
from ridgeline_recipes.template import training_template
from ridgeline_recipes.training import (
    LinearSchedule,
    adapter_config,
    arguments,
    scratch_folder,
    stoppable,
    train,
)


class _Trainer(LinearSchedule, SFTTrainer):  # type: ignore[misc]  # trl has no types
    """Of trl, with our schedule."""


def tune_on_chats(
    job: Job,
    options: TuningOptions,
    chats: Sequence[Chat],
    general: Sequence[Chat],
    questions: Mapping[str, Sequence[Question]],
    training: str,
) -> int:
    """Train on the user's chats and on ``general`` ones, save, and report; returns the exit status.
    ``training`` is the fingerprint that checkpoints carry, ``questions`` sets by name."""
    prepare(options)
    metrics = Metrics(job.output)
    tokenizer = load_tokenizer(job.model)
    own = tokenizer.chat_template
    template = tokenizer.chat_template = training_template(own)
    encoder = ChatEncoder(tokenizer, job.model, options.max_length)
    encoded = encoder.chats(chats, "chats", required=True)
    encoded += encoder.chats(general, "general chats", required=False)
    model = load_causal(job.model, options.chosen_dtype)
    before = {name: ask(model, tokenizer, own, each) for name, each in questions.items()}
    with stoppable() as stop:
        with scratch_folder() as scratch:
            trainer = _Trainer(
                model=model,
                args=SFTConfig(
                    **arguments(options, job, scratch), max_length=options.max_length, packing=False
                ),
                train_dataset=Dataset.from_list(
                    [{"input_ids": list(each.ids), "labels": list(each.labels)} for each in encoded]
                ),
                processing_class=tokenizer,
                peft_config=adapter_config(options),
            )
            train(trainer, job, training, metrics, stop)
        # Saved before it is asked: answering takes time, and may be interrupted.
        tuned = save_tuned(trainer.model, job.model, job.result, template)
        metrics.write()
    if stop.asked:
        return STOPPED
    for name, each in questions.items():
        _compare(job, metrics, name, before[name], ask(tuned, tokenizer, template, each))
    metrics.write()
    return 0


def _compare(
    job: Job, metrics: Metrics, name: str, before: Sequence[Answer], after: Sequence[Answer]
) -> None:
    metrics.report(
        **{
            f"{name}_questions": len(after),
            f"{name}_right_before": right(before),
            f"{name}_right": right(after),
            f"{name}_lost": lost(before, after),
        }
    )
    write_answers(job.output / f"{name}_answers.jsonl", before, after)
