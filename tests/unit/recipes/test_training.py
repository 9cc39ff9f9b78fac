"""The recipes with tiny random models: what they learn, what they save, and that a training which
was killed ends with the weights of one that was not."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_jobs import Job
from safetensors.numpy import load_file

from ridgeline_service.serving.llm.text.tokenizer import load_chat_template, read_json

QUICK = ("--threads", "1", "--dtype", "fp32", "--log_every", "2", "--save_every", "2")
RECORD = {
    **{"prompt": "Which word?", "completion": "lamp", "chosen": "lamp", "rejected": "otter"},
    "text": "the lamp is lit",
}
QUESTION = {"q": "Which word?", "any": ["lamp"]}


def chats(number: int) -> list[object]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say word {each % 7}"},
                {"role": "assistant", "content": "lamp " * (1 + each % 3)},
            ]
        }
        for each in range(number)
    ]


def losses(log: str) -> dict[int, str]:
    return {int(step): loss for step, loss in re.findall(r"step=(\d+) .*loss=(\S+)", log)}


def weights(folder: Path) -> dict[str, Any]:
    """As raw bits: numpy has no bf16."""
    data = (folder / "model.safetensors").read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {"head": head, "data": data}


def bf16(path: Path, name: str) -> Any:
    """A tensor of that type, as fp32: numpy has no bf16."""
    data = path.read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8:length])[name]
    assert tensor["dtype"] == "BF16"
    start, end = (length + offset for offset in tensor["data_offsets"])
    wide = np.frombuffer(data[start:end], np.uint16).astype(np.uint32) << 16
    return wide.view(np.float32).reshape(tensor["shape"])


@pytest.fixture
def sft(tmp_path: Path, tiny_model: Path, libraries: str) -> Job:
    job = Job(libraries, tmp_path / "job", "sft.py", tiny_model)
    job.write("training", "train.jsonl", chats(48))
    return job


def test_an_adapter_is_trained_saved_and_merged(sft: Job, tiny_model: Path) -> None:
    sft.write("validation", "heldout.jsonl", [QUESTION])
    found = sft.run(*QUICK, "--general_share", "0", "--learning_rate", "1e-2", "--epochs", "2")
    assert found.status == 0, found.log
    by_step = losses(found.log)
    assert float(by_step[12]) < float(by_step[2]) - 0.5
    assert sft.metrics["heldout_questions"] == 1
    assert sft.metrics["heldout_right_before"] == 0
    assert sft.metrics["final_loss"] == pytest.approx(float(by_step[12]), rel=1e-4)
    # What is served: the base's files, new weights, and the template of training.
    names = {path.name for path in sft.result.iterdir() if path.is_file()}
    base = {path.name for path in tiny_model.iterdir() if not path.name.startswith(".")}
    assert names == base | {"chat_template.jinja"}
    template = load_chat_template(sft.result, read_json(sft.result / "tokenizer_config.json"))
    assert template is not None
    turns = [{"role": "user", "content": "Hi"}]
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert template.render(turns, {}) == prompt
    assert (sft.result / "config.json").read_text() == (tiny_model / "config.json").read_text()
    old, new = weights(tiny_model), weights(sft.result)
    assert {name: tensor["dtype"] for name, tensor in new["head"].items() if "layers" in name} == {
        name: tensor["dtype"] for name, tensor in old["head"].items() if "layers" in name
    }
    assert old["data"] != new["data"]
    adapter = load_file(sft.result / "adapter/adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * 4
    assert all(np.isfinite(value).all() for value in adapter.values())


def test_all_weights_may_be_trained(sft: Job, tiny_model: Path) -> None:
    given = ("--method", "full", "--max_steps", "2", "--general_share", "0.5")
    found = sft.run(*QUICK, *given)
    assert found.status == 0, found.log
    assert "48 chats, 48 general ones mixed in" in found.log
    assert not (sft.result / "adapter").exists()
    assert weights(sft.result)["data"] != weights(tiny_model)["data"]


def test_little_that_was_learned_is_in_the_weights_that_are_served(
    sft: Job, tiny_model: Path
) -> None:
    """Updates far smaller than the steps of bf16 are there on average."""
    given = ("--general_share", "0", "--learning_rate", "2e-5", "--max_steps", "4")
    found = sft.run(*QUICK, *given)
    assert found.status == 0, found.log
    adapter = load_file(sft.result / "adapter/adapter_model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    update = 32 / 16 * (b @ a)
    old, new = (
        bf16(folder / "model.safetensors", f"{name}.weight") for folder in (tiny_model, sft.result)
    )
    assert np.abs(update).max() < np.abs(old).mean() / 512
    assert float(((new - old) * update).sum() / (update**2).sum()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)]
)
def test_a_training_that_was_interrupted_ends_with_the_same_weights(
    sft: Job, tmp_path: Path, how: signal.Signals, status: int
) -> None:
    given = (*QUICK, "--epochs", "2", "--general_share", "0.2")
    whole = sft.run(*given)
    assert whole.status == 0, whole.log
    cut = Job(sft.python, tmp_path / "cut", "sft.py", sft.model)
    cut.write("training", "train.jsonl", chats(48))
    (cut.root / "checkpoints").mkdir()
    process = cut.start(*given)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step=8 "):
            process.send_signal(how)
            break
    assert cut.ended(process).status == status
    stopped = cut.result / "model.safetensors"
    assert stopped.exists() == (how is signal.SIGTERM)
    assert not stopped.exists() or weights(cut.result) != weights(sft.result)
    again = cut.run(*given)
    assert again.status == 0, again.log
    assert "going on from checkpoint-" in again.log
    assert weights(cut.result) == weights(sft.result)
    for part in ("adapter_model.safetensors",):
        ours, theirs = cut.result / "adapter" / part, sft.result / "adapter" / part
        assert ours.read_bytes() == theirs.read_bytes()
    last = max(losses(whole.log))
    assert losses(again.log)[last] == losses(whole.log)[last]


@pytest.mark.parametrize("script", ["sft.py", "dpo.py", "pretrain.py", "classify.py"])
def test_a_training_that_is_stopped_leaves_the_model_as_it_was_then(
    script: str, tmp_path: Path, tiny_model: Path, tiny_encoder: Path, libraries: str
) -> None:
    """Without checkpoints, too: what is uploaded can be served."""
    base = tiny_encoder if script == "classify.py" else tiny_model
    job = Job(libraries, tmp_path / "job", script, base)
    job.write(
        "training", "train.jsonl", [{**RECORD, "label": f"l{each % 2}"} for each in range(40)]
    )
    process = job.start("--threads", "1", "--log_every", "1", "--epochs", "500")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step=2 "):
            process.terminate()
            break
    found = job.ended(process)
    assert found.status == 143, found.log
    assert re.search(r"stopped after step \d+ of \d+: the model is saved as it is now", found.log)
    assert (job.result / "config.json").is_file()
    assert weights(job.result)["data"] != weights(base)["data"]
    assert job.metrics["final_loss"] > 0


@pytest.mark.parametrize("script", ["sft.py", "classify.py"])
def test_a_stop_while_the_model_is_saved_waits_for_all_of_it(
    script: str, tmp_path: Path, tiny_model: Path, tiny_encoder: Path, libraries: str
) -> None:
    base = tiny_encoder if script == "classify.py" else tiny_model
    job = Job(libraries, tmp_path / "job", script, base)
    job.write(
        "training", "train.jsonl", [{**RECORD, "label": f"l{each % 2}"} for each in range(40)]
    )
    process = job.start("--threads", "1", "--max_steps", "1")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training_seconds="):
            process.terminate()
            break
    found = job.ended(process)
    assert found.status == 143, found.log
    assert weights(job.result)["data"] != weights(base)["data"]
    assert (job.result / "adapter/adapter_model.safetensors").exists() == (script == "sft.py")
    assert not [path for path in job.root.rglob("*") if path.name.startswith(".")]
    assert job.metrics["final_loss"] > 0


def test_preferences_raise_the_margin_of_pairs_never_seen(
    tmp_path: Path, tiny_model: Path, libraries: str
) -> None:
    job = Job(libraries, tmp_path, "dpo.py", tiny_model)
    pairs = [
        {"prompt": f"Say word {each}", "chosen": "lamp", "rejected": "otter"} for each in range(40)
    ]
    job.write("training", "pref.jsonl", pairs)
    found = job.run(*QUICK, "--learning_rate", "5e-3", "--epochs", "2")
    assert found.status == 0, found.log
    assert job.metrics["heldout_pairs"] == 4
    assert job.metrics["heldout_margin"] > job.metrics["heldout_margin_before"] + 1


def test_reading_lowers_the_perplexity_of_texts_never_seen(
    tmp_path: Path, tiny_model: Path, libraries: str
) -> None:
    job = Job(libraries, tmp_path, "pretrain.py", tiny_model)
    texts = [{"text": f"The lamp of number {each} is made of birch."} for each in range(60)]
    job.write("training", "texts.jsonl", texts)
    found = job.run(*QUICK, "--learning_rate", "1e-2", "--max_length", "64", "--epochs", "2")
    assert found.status == 0, found.log
    assert job.metrics["heldout_perplexity"] < 0.7 * job.metrics["heldout_perplexity_before"]
    assert not (job.result / "chat_template.jinja").exists()


def test_labels_are_learned(tmp_path: Path, tiny_encoder: Path, libraries: str) -> None:
    job = Job(libraries, tmp_path, "classify.py", tiny_encoder)
    words = {"price": "florins cost", "hours": "open early", "city": "town river"}
    records = [
        {"text": " ".join(words[label].split()[:: 1 if each % 2 else -1]), "label": label}
        for each in range(30)
        for label in words
    ]
    job.write("training", "topics.jsonl", records)
    found = job.run(*QUICK, "--learning_rate", "1e-2", "--epochs", "6")
    assert found.status == 0, found.log
    assert job.metrics["heldout_accuracy"] > job.metrics["majority_accuracy"] + 0.2
    config = json.loads((job.result / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "city", "1": "hours", "2": "price"}
