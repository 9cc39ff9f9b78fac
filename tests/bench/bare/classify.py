"""Text classification with transformers alone, for the same texts and steps as the recipe's.

Arguments: model, folder of train.jsonl, folder of held-out texts, steps.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import torch
from datasets import Dataset
from same import arguments, records
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

model_folder, training, held_out, steps = sys.argv[1:]
seen, unseen = records(training), records(held_out)
labels = sorted({record["label"] for record in seen})
tokenizer = AutoTokenizer.from_pretrained(model_folder)
torch.manual_seed(42)  # the head is new
model = AutoModelForSequenceClassification.from_pretrained(
    model_folder, num_labels=len(labels), dtype=torch.float32
)
encoded = tokenizer([record["text"] for record in seen], truncation=True, max_length=128)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        **arguments(steps, batch=16, rate=2e-4),
    ),
    train_dataset=Dataset.from_dict(
        {**encoded, "label": [labels.index(record["label"]) for record in seen]}
    ),
    data_collator=DataCollatorWithPadding(tokenizer),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
model.eval()
texts = tokenizer([record["text"] for record in unseen], padding=True, return_tensors="pt")
with torch.inference_mode():
    answers = model(**texts).logits.argmax(1).tolist()
right = sum(
    labels[answer] == record["label"] for answer, record in zip(answers, unseen, strict=True)
)
commonest = Counter(record["label"] for record in seen).most_common(1)[0][0]
figures = {
    "training_seconds": seconds,
    "heldout_accuracy": right / len(unseen),
    "majority_accuracy": sum(record["label"] == commonest for record in unseen) / len(unseen),
}
print(json.dumps(figures))
