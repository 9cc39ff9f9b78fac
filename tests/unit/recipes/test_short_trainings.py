"""Trainings of few steps, ones that go on at their end, and chats that are too long to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from recipe_jobs import Job
from safetensors.numpy import load_file

QUICK = ("--threads", "1", "--dtype", "fp32", "--general_share", "0")
LONG = "Say this word and no other. " * 30


def chat(prompt: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": "lamp"}


@pytest.fixture
def sft(tmp_path: Path, tiny_model: Path, libraries: str) -> Job:
    job = Job(libraries, tmp_path / "job", "sft.py", tiny_model)
    job.write("training", "train.jsonl", [chat(f"Say word {each}") for each in range(24)])
    return job


def test_one_step_is_learned_logged_and_counted(sft: Job) -> None:
    found = sft.run(*QUICK, "--max_steps", "1")
    assert found.status == 0, found.log
    assert "step=1 of=1 epoch=0.33 loss=" in found.log
    assert "learning_rate=0.001 " in found.log
    adapter = load_file(sft.result / "adapter/adapter_model.safetensors")
    learned = [value for name, value in adapter.items() if "lora_B" in name]
    assert learned
    assert all(np.abs(value).max() > 0 for value in learned)
    assert sft.metrics["final_loss"] > 0
    template = (sft.result / "chat_template.jinja").read_text()
    assert (sft.result / "adapter/chat_template.jinja").read_text() == template


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_at_its_end_keeps_weights_and_figures(sft: Job, method: str) -> None:
    (sft.root / "checkpoints").mkdir()
    given = (*QUICK, "--max_steps", "4", "--log_every", "3", "--method", method)
    assert sft.run(*given).status == 0
    weights, before = (sft.result / "model.safetensors").read_bytes(), sft.metrics
    (sft.result / "model.safetensors").unlink()
    again = sft.run(*given)
    assert again.status == 0, again.log
    assert "checkpoint-4 is the end of this training" in again.log
    assert "step=" not in again.log
    assert (sft.result / "model.safetensors").read_bytes() == weights
    for name in ("final_loss", "training_seconds", "train_tokens_per_second"):
        assert sft.metrics[name] == pytest.approx(before[name])
    assert [each.name for each in sft.root.glob("checkpoints/checkpoint-*")] == ["checkpoint-4"]


def test_a_checkpoint_of_another_base_is_refused(sft: Job, tmp_path: Path) -> None:
    (sft.root / "checkpoints").mkdir()
    given = (*QUICK, "--max_steps", "2")
    assert sft.run(*given).status == 0
    other = tmp_path / "other"
    other.mkdir()
    for path in sft.model.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\0\1")
    found = Job(sft.python, sft.root, "sft.py", other).run(*given)
    assert found.status == 1
    assert "step 2 comes from other data or hyperparameters, or from another base" in found.failure


def test_chats_without_room_for_an_answer_are_named(sft: Job) -> None:
    sft.write("training", "train.jsonl", [chat("When?"), chat(LONG), chat(LONG), chat("Where?")])
    found = sft.run(*QUICK, "--max_length", "128")
    assert found.status == 0, found.log
    assert "2 of 4 chats left out: the prompt alone fills max_length=128 tokens" in found.log
    assert "(train.jsonl:2, train.jsonl:3)" in found.log
    assert "are cut" not in found.log


@pytest.mark.parametrize("script", ["sft.py", "dpo.py"])
def test_nothing_left_to_learn_is_refused(sft: Job, script: str) -> None:
    record = {**chat(LONG), "chosen": "lamp", "rejected": "otter"}
    sft.write("training", "train.jsonl", [record] * 4)
    options = QUICK if script == "sft.py" else QUICK[:4]
    found = Job(sft.python, sft.root, script, sft.model).run(*options, "--max_length", "128")
    assert found.status == 1
    assert "the prompt alone fills max_length=128 tokens (train.jsonl:" in found.failure
    assert "Raise max_length or shorten the prompts." in found.failure


def test_pairs_without_room_for_an_answer_are_named(sft: Job) -> None:
    short, long = ({**chat(each), "chosen": "lamp", "rejected": "otter"} for each in ("Hi", LONG))
    sft.write("training", "train.jsonl", [short, long])
    sft.write("validation", "more.jsonl", [long])
    job = Job(sft.python, sft.root, "dpo.py", sft.model)
    found = job.run(*QUICK[:4], "--max_length", "128")
    assert found.status == 0, found.log
    assert "1 of 2 pairs left out" in found.log
    assert "1 of 1 held-out pairs left out" in found.log
    assert "(more.jsonl:1)" in found.log
    assert job.metrics["heldout_pairs"] == 0


def test_instruction_data_is_learned_by_its_template(sft: Job) -> None:
    sft.write("training", "train.jsonl", [{"instruction": "Say", "answer": "lamp"}] * 8)
    template = {"prompt": "### {instruction}", "completion": "{answer}"}
    (sft.root / "input/training/template.json").write_text(json.dumps(template))
    (sft.root / "input/training/notes.csv").write_text("a,b\n")
    found = sft.run(*QUICK)
    assert found.status == 0, found.log
    assert "8 chats, 0 general ones" in found.log
    assert "Channel 'training': not read, since only *.jsonl is: notes.csv" in found.log
