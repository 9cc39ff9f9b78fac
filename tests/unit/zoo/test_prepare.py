from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ridgeline_zoo import Card
from ridgeline_zoo.errors import HashMismatch, OutputTaken, OutputUnwritable
from ridgeline_zoo.hashes import sha256_of
from ridgeline_zoo.prepare import RECORD, Options, prepare, run

CARDS = Path(__file__).parents[3] / "model_zoo/ridgeline_zoo/cards"


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "cache", tmp_path / "pins.json", os.environ)


def command(card: str, out: Path, *cards: Path, **settings: Any) -> tuple[int, list[Any]]:
    """Status and lines of the command, run in this process."""
    stream = io.StringIO()
    ticks: Iterator[int] = iter(range(10_000))
    status = run(
        card,
        out,
        cards,
        settings.get("pins"),
        out.parent / "cache",
        environment=settings.get("environment", os.environ),
        stream=stream,
        clock=lambda: float(next(ticks)),
    )
    return status, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_fresh_process_prepares_without_torch_or_transformers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded"]
        + ["--out", str(tmp_path / "m"), "--cache-dir", str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "tokenizers" in imported
    assert not imported & {"torch", "transformers", "boto3", "huggingface_hub"}
    *progress, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["stage"] for line in progress} == {"download", "prepare"}
    listed = {file["name"]: file for file in last["result"]["files"]}
    found = {path.name for path in (tmp_path / "m").iterdir()} - {RECORD}
    assert set(listed) == found
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= found
    for name, file in listed.items():
        assert file["size"] == (tmp_path / "m" / name).stat().st_size
        assert file["sha256"] == sha256_of(tmp_path / "m" / name)


def test_the_seeded_model_is_the_same_for_ever(
    tiny: Card, tmp_path: Path, options: Options
) -> None:
    prepare(tiny, tmp_path / "m", options)
    # Recorded when the card was made: other weights would need another version of the card.
    expected = "466c0227e233f1daa23711fde2d93274c2d228b6a48f382ca3a26a644ef8fc99"
    assert sha256_of(tmp_path / "m" / "model.safetensors") == expected


def test_the_seeded_model_can_be_served(tiny: Card, tmp_path: Path, options: Options) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prepare(tiny, tmp_path / "m", options)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.num_parameters() == tiny.parameters
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    chat = [{"role": "user", "content": "hello world 日本"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    ids = ids["input_ids"] if hasattr(ids, "keys") else ids
    new = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)[0, -8:]
    assert len(set(new.tolist())) > 1
    assert tokenizer.decode(ids[0]).endswith("<|im_start|>assistant\n")


def test_every_token_of_the_seeded_model_has_a_spelling(
    tiny: Card, tmp_path: Path, options: Options
) -> None:
    prepare(tiny, tmp_path / "m", options)
    tokenizer = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    rows = embedding_rows(tmp_path / "m" / "model.safetensors")
    assert all(tokenizer.id_to_token(index) is not None for index in range(rows))


def embedding_rows(path: Path) -> int:
    from ridgeline_zoo.convert.safetensors_file import read_header

    return read_header(path)["model.embed_tokens.weight"].shape[0]


def test_a_second_run_checks_and_does_nothing(tiny: Card, tmp_path: Path, options: Options) -> None:
    first = prepare(tiny, tmp_path / "m", options)
    before = (tmp_path / "m" / "model.safetensors").stat()
    assert prepare(tiny, tmp_path / "m", options) == first
    after = (tmp_path / "m" / "model.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("harm", ["changed", "cut", "removed"])
def test_a_damaged_folder_is_made_again(
    tiny: Card, tmp_path: Path, options: Options, harm: str
) -> None:
    first = prepare(tiny, tmp_path / "m", options)
    victim = tmp_path / "m" / "model.safetensors"
    whole = victim.read_bytes()
    if harm == "removed":
        victim.unlink()
    else:
        victim.write_bytes(whole[:-1] + (b"" if harm == "cut" else b"\x7f"))
    assert prepare(tiny, tmp_path / "m", options) == first
    assert victim.read_bytes() == whole


def test_a_newer_card_replaces_the_folder(tiny: Card, tmp_path: Path, options: Options) -> None:
    prepare(tiny, tmp_path / "m", options)
    prepare(replace(tiny, version="2.0.0"), tmp_path / "m", options)
    assert json.loads((tmp_path / "m" / RECORD).read_text())["version"] == "2.0.0"
    assert {path.name for path in tmp_path.iterdir() if "making" in path.name} == set()


def test_a_folder_of_someone_else_is_left_alone(
    tiny: Card, tmp_path: Path, options: Options
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputTaken, match="not empty"):
        prepare(tiny, tmp_path / "m", options)
    assert (tmp_path / "m" / "thesis.txt").read_text() == "years of work"


def test_a_failure_leaves_no_folder(tiny: Card, tmp_path: Path, options: Options) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "prepare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tiny, tmp_path / "m", options, stop)
    assert {path.name for path in tmp_path.iterdir()} <= {".m.lock", "cache"}


def test_leftovers_of_a_killed_run_are_cleared(
    tiny: Card, tmp_path: Path, options: Options
) -> None:
    stale = tmp_path / ".m.making-killed"
    (stale / "fetched").mkdir(parents=True)
    prepare(tiny, tmp_path / "m", options)
    assert not stale.exists()


def test_a_disk_that_cannot_be_written_is_named(tiny: Card, options: Options) -> None:
    with pytest.raises(OutputUnwritable, match="/proc"):
        prepare(tiny, Path("/proc/version/m"), options)


@pytest.fixture
def local_card(tiny: Card, tmp_path: Path, options: Options) -> Card:
    """A card whose source is a folder on disk."""
    prepare(tiny, tmp_path / "source", options)
    return replace(tiny, source=f"file://{tmp_path / 'source'}")


def test_hashes_are_recorded_once_and_enforced_afterwards(
    local_card: Card, tmp_path: Path, options: Options
) -> None:
    prepare(local_card, tmp_path / "one", options)
    pins = json.loads((tmp_path / "pins.json").read_text())
    recorded = pins[f"{local_card.source}@{local_card.revision}"]
    tokenizer = tmp_path / "source" / "tokenizer.json"
    assert recorded["tokenizer.json"] == sha256_of(tokenizer)

    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(HashMismatch, match=r"^tokenizer\.json has sha256") as caught:
        prepare(local_card, tmp_path / "two", options)
    assert recorded["tokenizer.json"] in caught.value.message
    assert sha256_of(tokenizer) in caught.value.message
    assert not (tmp_path / "two").exists()
    assert json.loads((tmp_path / "pins.json").read_text()) == pins


def test_nothing_is_recorded_of_a_model_that_was_refused(
    local_card: Card, tmp_path: Path, options: Options
) -> None:
    (tmp_path / "source" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(Exception, match="safetensors"):
        prepare(local_card, tmp_path / "one", options)
    assert not (tmp_path / "pins.json").exists()


def test_a_card_may_state_a_hash(local_card: Card, tmp_path: Path, options: Options) -> None:
    card = replace(local_card, sha256={"config.json": "0" * 64})
    with pytest.raises(HashMismatch, match="its card says 0000"):
        prepare(card, tmp_path / "one", options)


def test_the_command_tells_progress_then_the_result(tmp_path: Path) -> None:
    status, lines = command("tiny-llama-seeded", tmp_path / "m")
    assert status == 0
    assert all(set(line) == {"stage", "done", "total"} for line in lines[:-1])
    assert set(lines[-1]) == {"result"}


def test_the_command_tells_errors_with_a_hint(tmp_path: Path) -> None:
    status, lines = command("tiny-lama-seeded", tmp_path / "m")
    assert status == 1
    assert lines[-1]["error"]["code"] == "UnknownModel"
    assert "tiny-llama-seeded" in lines[-1]["error"]["hint"]


def test_the_command_takes_cards_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    text = (CARDS / "tiny-llama-seeded.yaml").read_text()
    (tmp_path / "cards" / "a.yaml").write_text(text.replace("id: tiny-llama-seeded", "id: mine"))
    status, _ = command("mine", tmp_path / "m", tmp_path / "cards")
    assert status == 0
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_a_broken_pins_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text("{broken")
    status, lines = command("tiny-llama-seeded", tmp_path / "m", pins=tmp_path / "pins.json")
    assert status == 1
    assert "pins.json" in lines[-1]["error"]["message"]


def test_a_hub_model_is_prepared_pinned_and_needs_no_hub_again(
    hub: Any, tiny: Card, tmp_path: Path, options: Options
) -> None:
    made = prepare(tiny, tmp_path / "source", options)
    hub.files = {file.name: (tmp_path / "source" / file.name).read_bytes() for file in made}
    card = replace(tiny, source="hf://org/model", revision="main")
    online = replace(options, environment={"HF_ENDPOINT": hub.url})
    assert prepare(card, tmp_path / "m", online) == made
    pins = json.loads((tmp_path / "pins.json").read_text())["hf://org/model@main"]
    assert pins == {file.name: file.sha256 for file in made}

    asked = len(hub.requests)
    assert prepare(card, tmp_path / "m", online) == made
    assert len(hub.requests) == asked

    hub.files["tokenizer.json"] += b" "
    with pytest.raises(HashMismatch, match=r"tokenizer\.json"):
        prepare(card, tmp_path / "elsewhere", online)
