"""Learns labels of texts: an encoder with a new head, all weights in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ridgeline_recipes.base_model import load_tokenizer, prepare
from ridgeline_recipes.formats import Labelled
from ridgeline_recipes.job import STOPPED, Job
from ridgeline_recipes.metrics import Metrics
from ridgeline_recipes.options import Options
from ridgeline_recipes.saving import save_model, saved_whole
from ridgeline_recipes.training import LinearSchedule, arguments, scratch_folder, stoppable, train

_AT_ONCE = 32


class _Trainer(LinearSchedule, Trainer):
    """Of transformers, with our schedule."""


def tune_on_labels(
    job: Job,
    options: Options,
    labels: Sequence[str],
    records: Sequence[Labelled],
    held_out: Sequence[Labelled],
    training: str,
) -> int:
    """Train, save, and report accuracy on ``held_out`` beside that of always answering with the
    commonest label; returns the exit status."""
    prepare(options)
    metrics = Metrics(job.output)
    tokenizer = load_tokenizer(job.model)
    numbers = {label: number for number, label in enumerate(labels)}
    set_seed(options.seed)  # the head is new
    model = AutoModelForSequenceClassification.from_pretrained(
        job.model,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id=numbers,
        problem_type="single_label_classification",
        dtype=torch.float32,
        local_files_only=True,
    )
    encoded = tokenizer(
        [record.text for record in records], truncation=True, max_length=options.max_length
    )
    dataset = Dataset.from_dict({**encoded, "label": [numbers[each.label] for each in records]})
    with stoppable() as stop:
        with scratch_folder() as scratch:
            trainer = _Trainer(
                model=model,
                args=TrainingArguments(**arguments(options, job, scratch)),
                train_dataset=dataset,
                data_collator=DataCollatorWithPadding(tokenizer),
                processing_class=tokenizer,
            )
            train(trainer, job, training, metrics, stop)
        with saved_whole(job.result) as room:
            save_model(model, job.model, room, None, own_config=True)
        metrics.write()
    if stop.asked:
        return STOPPED
    found = _labels(model, tokenizer, [record.text for record in held_out], options.max_length)
    right = sum(number == numbers[each.label] for number, each in zip(found, held_out, strict=True))
    commonest = Counter(record.label for record in records).most_common(1)[0][0]
    metrics.report(
        heldout_texts=len(held_out),
        heldout_accuracy=right / len(held_out),
        majority_accuracy=sum(each.label == commonest for each in held_out) / len(held_out),
    )
    metrics.write()
    return 0


def _labels(model: Any, tokenizer: Any, texts: Sequence[str], max_length: int) -> list[int]:
    model.eval()
    found: list[int] = []
    for start in range(0, len(texts), _AT_ONCE):
        batch = tokenizer(
            list(texts[start : start + _AT_ONCE]),
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            found += model(**batch).logits.argmax(1).tolist()
    return found
