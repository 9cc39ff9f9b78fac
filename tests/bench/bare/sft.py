"""Supervised fine-tuning with trl alone, for the same records and steps as the recipe's.

Arguments: model, folder of train.jsonl, folder of held-out records (not read), steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from same import TEMPLATE, adapter, arguments, records
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

model, training, _, steps = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.chat_template = Path(TEMPLATE).read_text()
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
    args=SFTConfig(
        **arguments(steps, batch=8, rate=1e-3),
        bf16=False,
        activation_checkpointing=False,
        assistant_only_loss=True,
        include_num_input_tokens_seen="non_padding",
    ),
    train_dataset=Dataset.from_list(records(training)),
    processing_class=tokenizer,
    peft_config=adapter(),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
figures = {"train_tokens_per_second": trainer.state.num_input_tokens_seen / seconds}
print(json.dumps(figures))
