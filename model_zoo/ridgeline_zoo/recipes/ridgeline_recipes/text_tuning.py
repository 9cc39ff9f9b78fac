"""Learns to continue texts, by trl's SFTTrainer over blocks of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from ridgeline_recipes.base_model import load_causal, load_tokenizer, prepare
from ridgeline_recipes.job import STOPPED, Job, say
from ridgeline_recipes.metrics import Metrics
from ridgeline_recipes.options import TuningOptions
from ridgeline_recipes.saving import save_tuned
from ridgeline_recipes.scoring import log_likelihoods, perplexity
from ridgeline_recipes.template import Encoded
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


def tune_on_texts(
    job: Job,
    options: TuningOptions,
    texts: Sequence[str],
    held_out: Sequence[str],
    training: str,
) -> int:
    """Train, save, and report perplexity on ``held_out``; returns the exit status."""
    prepare(options)
    metrics = Metrics(job.output)
    tokenizer = load_tokenizer(job.model)
    model = load_causal(job.model, options.chosen_dtype)
    unseen = [_whole(ids, options.max_length) for ids in _tokens(tokenizer, held_out)]
    before = perplexity(log_likelihoods(model, unseen))
    made = blocks(_tokens(tokenizer, texts), options.max_length)
    say(f"{len(texts)} texts in {len(made)} blocks of up to {options.max_length} tokens")
    with stoppable() as stop:
        with scratch_folder() as scratch:
            trainer = _Trainer(
                model=model,
                args=SFTConfig(**arguments(options, job, scratch), max_length=options.max_length),
                train_dataset=Dataset.from_list([{"input_ids": block} for block in made]),
                processing_class=tokenizer,
                peft_config=adapter_config(options),
            )
            train(trainer, job, training, metrics, stop)
        tuned = save_tuned(trainer.model, job.model, job.result, None)
        metrics.write()
    if stop.asked:
        return STOPPED
    after = perplexity(log_likelihoods(tuned, unseen))
    metrics.report(
        heldout_texts=len(unseen), heldout_perplexity_before=before, heldout_perplexity=after
    )
    metrics.write()
    return 0


def blocks(texts: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """All texts in one row, cut every ``length`` tokens. No token is lost; the last may be short.

    A block of a single token teaches nothing, since nothing comes before it: it is left out.
    """
    row = [token for text in texts for token in text]
    cut = [row[start : start + length] for start in range(0, len(row), length)]
    return [block for block in cut if len(block) > 1]


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Each text with the token that ends it."""
    found = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in found]


def _whole(ids: Sequence[int], max_length: int) -> Encoded:
    kept = tuple(ids[:max_length])
    return Encoded(kept, kept, len(ids) > max_length)
