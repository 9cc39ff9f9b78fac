"""Continued pre-training with transformers and peft alone, for the same texts and steps as the
recipe's.

Arguments: model, folder of train.jsonl, folder of held-out texts, steps.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from same import adapter, arguments, records
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

LENGTH = 128

model_folder, training, held_out, steps = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model_folder)


def tokens(folder: str) -> list[list[int]]:
    texts = [record["text"] for record in records(folder)]
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]


@torch.inference_mode()
def perplexity(model: Any, texts: list[list[int]]) -> float:
    model.eval()
    nats, count = 0.0, 0
    for ids in texts:
        row = torch.tensor([ids[:LENGTH]])
        likely = model(input_ids=row).logits[0, :-1].float().log_softmax(-1)
        nats -= float(likely.gather(1, row[0, 1:, None]).sum())
        count += row.shape[1] - 1
    return math.exp(nats / count)


torch.manual_seed(42)  # the adapter is new
model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
before = perplexity(model, tokens(held_out))
joined = [token for text in tokens(training) for token in text]
blocks = [joined[start : start + LENGTH] for start in range(0, len(joined), LENGTH)]
model = get_peft_model(model, adapter())
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        **arguments(steps, batch=4, rate=3e-4),
    ),
    train_dataset=Dataset.from_list([{"input_ids": block} for block in blocks]),
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
after = perplexity(model, tokens(held_out))
figures = {
    "training_seconds": seconds,
    "heldout_perplexity_before": before,
    "heldout_perplexity": after,
}
print(json.dumps(figures))
