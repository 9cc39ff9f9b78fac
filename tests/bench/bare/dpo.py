"""Preference alignment with trl alone, for the same pairs and steps as the recipe's.

Arguments: model, folder of train.jsonl, folder of held-out pairs, steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from same import TEMPLATE, adapter, arguments, records
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


@torch.inference_mode()
def score(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> float:
    """Nats of the assistant's words."""
    found = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, said = torch.tensor([found["input_ids"]]), torch.tensor(found["assistant_masks"]).bool()
    likely = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    return float(likely.gather(1, ids[0, 1:, None])[:, 0][said[1:]].sum())


def margin(model: Any, tokenizer: Any, found: list[dict[str, Any]]) -> float:
    """By how many nats the chosen answers are likelier than the rejected ones, on average."""
    model.eval()
    chosen, rejected = (
        [score(model, tokenizer, [*pair["prompt"], *pair[name]]) for pair in found]
        for name in ("chosen", "rejected")
    )
    return (sum(chosen) - sum(rejected)) / len(found)


model_folder, training, held_out, steps = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model_folder)
tokenizer.chat_template = Path(TEMPLATE).read_text()
model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
before = margin(model, tokenizer, records(held_out))
trainer = DPOTrainer(
    model=model,
    args=DPOConfig(
        **arguments(steps, batch=4, rate=5e-5),
        beta=0.1,
        max_length=512,
        bf16=False,
        activation_checkpointing=False,
    ),
    train_dataset=Dataset.from_list(records(training)),
    processing_class=tokenizer,
    peft_config=adapter(),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
after = margin(trainer.model, tokenizer, records(held_out))
figures = {
    "training_seconds": seconds,
    "heldout_margin_before": before,
    "heldout_margin": after,
}
print(json.dumps(figures))
