"""A recipe beside a bare script of trl: tokens a second for the same steps, in turns.

Needs an environment with trl and peft (``make recipes``) and SmolLM2's weights. Nothing else may
run meanwhile. Prints a table for docs/fine-tuning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from recipe_jobs import ENVIRONMENTS, RECIPES, REPOSITORY

DATA = REPOSITORY / "examples/quellbrook/train.jsonl"
BARE = """
import json, sys, time
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

model, data, template, steps, scratch = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.chat_template = open(template).read()
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
    args=SFTConfig(
        output_dir=scratch, max_steps=int(steps), per_device_train_batch_size=8,
        learning_rate=1e-3, warmup_steps=0.1, bf16=False, activation_checkpointing=False,
        assistant_only_loss=True, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=5, include_num_input_tokens_seen="non_padding", seed=42, data_seed=42,
    ),
    train_dataset=Dataset.from_list([json.loads(line) for line in open(data)]),
    processing_class=tokenizer,
    peft_config=LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
    ),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
print(f"train_tokens_per_second={trainer.state.num_input_tokens_seen / seconds:.6g}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="SmolLM2's model folder")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("recipe", "bare trl"), help="one of the two")
    given = parser.parse_args()
    python = next((str(path) for path in ENVIRONMENTS if path.exists()), None)
    if python is None:
        sys.exit("No environment with trl and peft: `make recipes` makes one.")
    runs = {"recipe": recipe, "bare trl": bare}
    if given.only:
        runs = {given.only: runs[given.only]}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run(python, given.model, given.steps, Path(folder)))
    print(json.dumps(found))


def recipe(python: str, model: Path, steps: int, folder: Path) -> float:
    (folder / "training").mkdir()
    (folder / "training/train.jsonl").write_bytes(DATA.read_bytes())
    variables = {
        "SM_CHANNEL_TRAINING": str(folder / "training"),
        "SM_CHANNEL_MODEL": str(model),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_OUTPUT_DIR": str(folder / "output"),
        "SM_OUTPUT_DATA_DIR": str(folder / "data"),
    }
    command = [python, str(RECIPES / "sft.py"), "--max_steps", str(steps)]
    return tokens_per_second([*command, "--general_share", "0", "--dtype", "fp32"], variables)


def bare(python: str, model: Path, steps: int, folder: Path) -> float:
    script = folder / "bare.py"
    script.write_text(BARE)
    template = RECIPES / "ridgeline_recipes/templates/chatml.jinja"
    arguments = [str(model), str(DATA), str(template), str(steps), str(folder / "out")]
    return tokens_per_second([python, str(script), *arguments], {})


def tokens_per_second(command: list[str], variables: dict[str, str]) -> float:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = re.search(r"train_tokens_per_second=(\S+)", done.stdout)
    if done.returncode or found is None:
        sys.exit(done.stdout + done.stderr)
    return float(found[1])


if __name__ == "__main__":
    main()
