"""What a user can get wrong ends a job within a second, with its reason, before torch is loaded."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
from recipe_jobs import Job

CHAT = {
    "messages": [
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "At 8:40."},
    ]
}
SCRIPTS = {
    "sft.py": CHAT,
    "dpo.py": {"prompt": "When?", "chosen": "At 8:40.", "rejected": "No idea."},
    "pretrain.py": {"text": "It opens at 8:40."},
    "classify.py": {"text": "When?", "label": "hours"},
}


@pytest.fixture
def without_torch(tmp_path: Path) -> str:
    """A folder for PYTHONPATH in which the heavy libraries end the process."""
    for name in ("torch", "transformers", "trl", "peft", "datasets"):
        (tmp_path / "poison").mkdir(exist_ok=True)
        text = f"raise SystemExit('{name} was imported too early')\n"
        (tmp_path / "poison" / f"{name}.py").write_text(text)
    return str(tmp_path / "poison")


def job(root: Path, model: Path, script: str) -> Job:
    return Job(sys.executable, root, script, model)


@pytest.mark.parametrize("script", SCRIPTS)
def test_bad_data_ends_the_job_with_its_lines(
    tmp_path: Path, tiny_model: Path, without_torch: str, script: str
) -> None:
    recipe = job(tmp_path, tiny_model, script)
    recipe.write("training", "train.jsonl", [SCRIPTS[script], {"wrong": 1}])
    found = recipe.run(PYTHONPATH=without_torch)
    assert found.status == 1
    assert found.failure.startswith("1 line of the data is wrong; nothing was trained.")
    assert "train.jsonl:2: " in found.failure
    assert found.failure in found.log


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_wrong_hyperparameter_ends_the_job(
    tmp_path: Path, tiny_model: Path, without_torch: str, script: str
) -> None:
    recipe = job(tmp_path, tiny_model, script)
    recipe.write("training", "train.jsonl", [SCRIPTS[script]])
    found = recipe.run("--epoch", "3", PYTHONPATH=without_torch)
    assert found.status == 1
    assert "no hyperparameter 'epoch'. Did you mean 'epochs'?" in found.failure


def test_a_job_without_a_base_model_says_so(tmp_path: Path, without_torch: str) -> None:
    (tmp_path / "empty").mkdir()
    recipe = job(tmp_path, tmp_path / "empty", "sft.py")
    recipe.write("training", "train.jsonl", [CHAT])
    found = recipe.run(PYTHONPATH=without_torch)
    assert found.status == 1
    assert "Channel 'model' has no config.json, tokenizer.json, *.safetensors" in found.failure


def test_a_training_that_does_not_fit_is_refused_with_what_does(
    tmp_path: Path, tiny_model: Path, without_torch: str
) -> None:
    limit = 1 << 30

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    recipe = job(tmp_path, tiny_model, "sft.py")
    long = {"prompt": "When?", "completion": "At 8:40, and not before. " * 200}
    recipe.write("training", "train.jsonl", [long] * 64)
    given = ("--batch_size", "32", "--max_length", "2048")
    found = recipe.run(*given, before=confine, PYTHONPATH=without_torch)
    assert found.status == 1
    assert "Training needs about " in found.failure
    assert "1.00 GiB are free" in found.failure
    assert "The nearest setting that fits" in found.failure
    assert "gradient_accumulation=" in found.failure


def test_labels_must_be_known_and_more_than_one(
    tmp_path: Path, tiny_model: Path, without_torch: str
) -> None:
    recipe = job(tmp_path, tiny_model, "classify.py")
    recipe.write("training", "train.jsonl", [SCRIPTS["classify.py"]])
    recipe.write("validation", "more.jsonl", [{"text": "Where?", "label": "city"}])
    found = recipe.run(PYTHONPATH=without_torch)
    assert "The training data has one label, 'hours'" in found.failure
    both = [SCRIPTS["classify.py"], {"text": "How much?", "label": "price"}]
    recipe.write("training", "train.jsonl", both)
    found = recipe.run(PYTHONPATH=without_torch)
    assert "labels that no training text has: city. Known: hours, price." in found.failure


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_channel_that_nobody_reads_is_refused(
    tmp_path: Path, tiny_model: Path, without_torch: str, script: str
) -> None:
    recipe = job(tmp_path, tiny_model, script)
    recipe.write("training", "train.jsonl", [SCRIPTS[script]])
    found = recipe.run(PYTHONPATH=without_torch, SM_CHANNEL_VALDIATION="/x", SM_CHANNEL_CODE="/x")
    assert found.status == 1
    assert "reads no channel 'valdiation'. Did you mean 'validation'?" in found.failure


@pytest.mark.parametrize("script", SCRIPTS)
def test_more_tokens_than_the_base_has_positions_are_refused(
    tmp_path: Path, tiny_model: Path, without_torch: str, script: str
) -> None:
    recipe = job(tmp_path, tiny_model, script)
    records = [SCRIPTS[script]] * 8
    if script == "classify.py":
        records += [{"text": "How much?", "label": "price"}] * 8
    recipe.write("training", "train.jsonl", records)
    found = recipe.run("--max_length", "2049", PYTHONPATH=without_torch)
    assert found.status == 1
    assert "max_length: the base model takes at most 2048 tokens, not 2049." in found.failure


def test_two_files_of_questions_with_one_name_are_refused(
    tmp_path: Path, tiny_model: Path, without_torch: str
) -> None:
    recipe = job(tmp_path, tiny_model, "sft.py")
    recipe.write("training", "train.jsonl", [CHAT])
    for folder in ("a", "b"):
        question = {"q": "When?", "any": ["8:40"]}
        recipe.write(f"validation/{folder}", "facts.jsonl", [question])
    found = recipe.run(PYTHONPATH=without_torch)
    assert found.status == 1
    assert "a/facts.jsonl and b/facts.jsonl would give figures of one name." in found.failure


def test_labels_that_leave_nothing_to_hold_out_ask_for_more(
    tmp_path: Path, tiny_model: Path, without_torch: str
) -> None:
    recipe = job(tmp_path, tiny_model, "classify.py")
    both = [SCRIPTS["classify.py"], {"text": "How much?", "label": "price"}]
    recipe.write("training", "train.jsonl", both)
    found = recipe.run(PYTHONPATH=without_torch)
    assert "The only record of a label cannot be both learned and held out" in found.failure
    assert "channel 'validation'" in found.failure
