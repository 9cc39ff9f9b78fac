"""Supervised fine-tuning with trl alone, for the same records and steps as the recipe's.

Arguments: model, folder of train.jsonl, folder of held-out records (not read), steps.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

TEMPLATE = "model_zoo/ridgeline_zoo/recipes/ridgeline_recipes/templates/chatml.jinja"

model, training, _, steps = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.chat_template = Path(TEMPLATE).read_text()
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
    args=SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=int(steps),
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        warmup_steps=0.1,
        bf16=False,
        activation_checkpointing=False,
        assistant_only_loss=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=5,
        include_num_input_tokens_seen="non_padding",
        seed=42,
        data_seed=42,
    ),
    train_dataset=Dataset.from_list(
        [json.loads(line) for line in (Path(training) / "train.jsonl").open()]
    ),
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
figures = {"train_tokens_per_second": trainer.state.num_input_tokens_seen / seconds}
print(json.dumps(figures))
