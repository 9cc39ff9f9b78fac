"""Preference alignment with trl alone, for the same pairs and steps as the recipe's.

Arguments: model, folder of train.jsonl, folder of held-out pairs, steps.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

TEMPLATE = "model_zoo/ridgeline_zoo/recipes/ridgeline_recipes/templates/chatml.jinja"


def pairs(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "train.jsonl").open()]


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
before = margin(model, tokenizer, pairs(held_out))
trainer = DPOTrainer(
    model=model,
    args=DPOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=int(steps),
        per_device_train_batch_size=4,
        learning_rate=5e-5,
        warmup_steps=0.1,
        beta=0.1,
        max_length=512,
        bf16=False,
        activation_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=5,
        seed=42,
        data_seed=42,
    ),
    train_dataset=Dataset.from_list(pairs(training)),
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
after = margin(trainer.model, tokenizer, pairs(held_out))
figures = {
    "training_seconds": seconds,
    "heldout_margin_before": before,
    "heldout_margin": after,
}
print(json.dumps(figures))
