"""Compiling: what is remembered is not compiled again; what cannot be says what to change."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.commands.compile import compile_model
from ridgeline_backends.neuron.compile import BucketDone, compile_decoder, compile_encoder
from ridgeline_backends.neuron.compile_cache import (
    CACHE_VARIABLE,
    CompileCache,
    FolderStore,
    open_cache,
)
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.placement import place

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
}
NEURON = NeuronConfig(tp_degree=2, seq_len=512)


def test_a_second_time_compiles_nothing_and_a_change_everything(tmp_path: Path) -> None:
    cache, placement = CompileCache(FolderStore(tmp_path)), place("inf2.xlarge", 2, None)
    first = compile_decoder(LLAMA, NEURON, placement, cache)
    assert (first.cached, len(first.modules)) == (0, 6)
    again = compile_decoder(LLAMA, NEURON, placement, CompileCache(FolderStore(tmp_path)))
    assert again.cached == 6
    assert again.modules == first.modules
    for changed in (replace(NEURON, batch_size=2), replace(NEURON, fused_qkv=True)):
        assert compile_decoder(LLAMA, changed, placement, cache).cached == 0
    elsewhere = place("trn2.3xlarge", 2, None)
    assert compile_decoder(LLAMA, NEURON, elsewhere, cache).cached == 0


def test_a_longer_bucket_takes_longer(tmp_path: Path) -> None:
    made = compile_decoder(
        LLAMA, NEURON, place("inf2.xlarge", 2, None), CompileCache(FolderStore(tmp_path))
    )
    for phase in ("context_encoding", "token_generation"):
        times = [one.seconds for one in made.modules if one.phase == phase]
        assert times == sorted(times)
        assert len(set(times)) == 3
    assert all(one.low <= one.seconds <= one.high for one in made.modules)


def test_several_may_write_at_once(tmp_path: Path) -> None:
    placement = place("inf2.xlarge", 2, None)

    def run(_: int) -> Any:
        return compile_decoder(
            LLAMA, NEURON, placement, CompileCache(FolderStore(tmp_path))
        ).modules

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(8)))
    assert all(one == found[0] for one in found)
    assert (
        compile_decoder(LLAMA, NEURON, placement, CompileCache(FolderStore(tmp_path))).cached == 6
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["module.json"] * 6


def test_readers_see_a_whole_artifact_or_none(tmp_path: Path) -> None:
    """While others write the same key again and again."""
    placement, store = place("inf2.xlarge", 2, None), FolderStore(tmp_path)
    [module, *_] = compile_decoder(LLAMA, NEURON, placement, CompileCache(store)).modules
    [path] = tmp_path.rglob(f"{module.key}/module.json")
    content = path.read_bytes()

    def write(_: int) -> None:
        store.write(str(path.relative_to(tmp_path)), content)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, turn) for turn in range(100)]
        found = [CompileCache(store).get(module.key) for _ in range(100)]
        for one in writing:
            one.result()
    assert all(one == module for one in found)


def test_a_module_that_is_cut_short_is_compiled_again(tmp_path: Path) -> None:
    placement, cache = place("inf2.xlarge", 2, None), CompileCache(FolderStore(tmp_path))
    compile_decoder(LLAMA, NEURON, placement, cache)
    broken = next(tmp_path.rglob("module.json"))
    broken.write_text(broken.read_text()[:20])
    assert compile_decoder(LLAMA, NEURON, placement, cache).cached == 5
    assert compile_decoder(LLAMA, NEURON, placement, cache).cached == 6


def test_what_does_not_fit_or_cannot_be_placed_is_refused(tmp_path: Path) -> None:
    cache = CompileCache(FolderStore(tmp_path))
    with pytest.raises(DoesNotFit, match="Choose one of: 1, 2, 4, 8, 24"):
        compile_decoder(
            LLAMA, replace(NEURON, tp_degree=16), place("inf2.48xlarge", 16, None), cache
        )
    large = replace(NEURON, batch_size=2048, seq_len=8192)
    with pytest.raises(DoesNotFit, match="Allocation Failure") as refused:
        compile_decoder(LLAMA, large, place("inf2.xlarge", 2, None), cache)
    first, *table, remedy = refused.value.message.splitlines()
    assert first.endswith("on inf2.xlarge at tp_degree 2:")
    sizes = [float(line.split("MB")[0]) for line in table]
    assert sizes == sorted(sizes, reverse=True)
    assert "tensors (KV cache, inputs and outputs)" in table[0]
    assert "fewer sequences" in remedy
    one = place("inf2.xlarge", 1, None)
    some = replace(large, tp_degree=1, batch_size=64)
    with pytest.raises(DoesNotFit, match="a tp_degree of 2, fewer"):
        compile_decoder(LLAMA, some, one, cache)
    # A degree at which it does not fit either is no advice.
    with pytest.raises(DoesNotFit, match="more memory in all, fewer"):
        compile_decoder(LLAMA, replace(large, tp_degree=1), one, cache)


def test_the_cache_is_where_the_variable_or_the_option_says(tmp_path: Path) -> None:
    named = {CACHE_VARIABLE: "/tmp/x"}
    assert open_cache(None, named).place == "/tmp/x"
    assert open_cache(None, {CACHE_VARIABLE: "file:///tmp/x"}).place == "/tmp/x"
    assert open_cache(str(tmp_path), named).place == str(tmp_path)
    service = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    assert open_cache("s3://bucket/a/cache/", service).place == "s3://bucket/a/cache"
    for wrong in ("ftp://x", "s3:///cache"):
        with pytest.raises(InvalidInput, match=wrong):
            open_cache(wrong, service)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = CompileCache(FolderStore(tmp_path / "file" / "cache"))
    with pytest.raises(InvalidInput, match="file/cache cannot be written"):
        compile_decoder(LLAMA, NEURON, place("inf2.xlarge", 2, None), cache)


def test_progress_counts_every_bucket_once(tmp_path: Path) -> None:
    placement, cache = place("inf2.xlarge", 2, None), CompileCache(FolderStore(tmp_path))
    seen: list[BucketDone] = []
    made = compile_decoder(LLAMA, NEURON, placement, cache, progress=seen.append)
    assert [(one.done, one.total) for one in seen] == [(place, 6) for place in range(1, 7)]
    assert seen[-1].left_s == 0
    assert {one.module.key for one in seen} == {one.key for one in made.modules}
    assert made.words == f"6 of 6 buckets ({tmp_path})"
    again = compile_decoder(LLAMA, NEURON, placement, cache, progress=seen.append)
    assert all(one.fetched for one in seen[6:])
    assert again.words == f"0 of 6 buckets, all from cache ({tmp_path})"


def test_an_artifact_holds_what_its_summary_says(tmp_path: Path) -> None:
    cache = CompileCache(FolderStore(tmp_path))
    made = compile_decoder(LLAMA, NEURON, place("inf2.xlarge", 2, None), cache)
    for module in made.modules:
        [path] = tmp_path.rglob(f"{module.key}/module.json")
        sections = json.loads(path.read_text())["program"]
        layers = next(one for one in sections if one["section"] == "layers")
        assert layers["repeats"] == 16
        assert any(one.get("exchange", {}).get("members") == 2 for one in layers["operations"])
        for total in ("flops", "bytes"):
            summed = sum(
                one["repeats"] * sum(op[total] for op in one["operations"]) for one in sections
            )
            assert summed == getattr(module, total)
        counted = sum(
            one["repeats"] * part["count"]
            for one in sections
            for op in one["operations"]
            for part in op["instructions"]
        )
        assert counted == module.instructions


def test_the_command_prints_modules_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    app = Typer()
    app.command()(compile_model)
    given = [str(config), "--instance", "inf2.xlarge", "--tp", "2", "--seq", "512"]
    shown = CliRunner().invoke(app, given)
    assert shown.exit_code == 0, shown.output
    assert "token_generation" in shown.stdout
    assert "[6/6] " in shown.stderr
    assert "compile: 6 of 6 buckets" in shown.stderr
    again = CliRunner().invoke(app, [*given, "--json"])
    assert json.loads(again.stdout)["cached"] == 6
    assert json.loads(again.stdout)["core_bytes"]["model constants"] > 2**30


def test_a_public_model_compiles_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    app = Typer()
    app.command()(compile_model)
    given = ["llama-3.1-8b", "--instance", "inf2.48xlarge", "--tp", "8"]
    shown = CliRunner().invoke(app, [*given, "--batch", "4", "--seq", "4096", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert {one["bucket"] for one in found["modules"]} == {128, 256, 512, 1024, 2048, 4096}
    # 16 GB of bf16 weights over 8 cores.
    assert found["core_bytes"]["model constants"] == pytest.approx(16.06e9 / 8, rel=0.02)


def test_the_command_compiles_encoders_for_one_text_and_for_a_batch(tmp_path: Path) -> None:
    app = Typer()
    app.command()(compile_model)

    def compiled(*more: str) -> Any:
        given = ["all-minilm-l6-v2", "--instance", "inf2.xlarge", "--cache", str(tmp_path), *more]
        return CliRunner().invoke(app, [*given, "--batch", "4"])

    shown = compiled()
    assert "compile: 6 of 6 buckets" in shown.stderr
    assert "encoding 512, batch 4: compiled" in shown.stderr
    assert "model constants" in shown.stdout
    found = json.loads(compiled("--json").stdout)
    assert found["cached"] == 6
    buckets = [(one["phase"], one["batch"], one["bucket"]) for one in found["modules"]]
    assert buckets == [("encoding", batch, size) for batch in (1, 4) for size in (128, 256, 512)]
    assert all(one["instructions"] > 0 for one in found["modules"])
    assert "context length 512" in str(compiled("--seq", "513").exception)
    assert "tp_degree 3" in str(compiled("--tp", "3").exception)
    nothing = CliRunner().invoke(app, ["t5-large", "--instance", "inf2.xlarge"])
    assert "type t5 are neither" in str(nothing.exception)


def test_an_encoder_that_does_not_fit_says_what_to_change(tmp_path: Path) -> None:
    config = text_encoder(find("bert-base", "encoders").config)
    assert config is not None
    neuron = NeuronConfig(tp_degree=1, seq_len=512, batch_size=2048)
    with pytest.raises(DoesNotFit, match=r"tp_degree of 2, fewer texts in a call \(batch_size\)"):
        compile_encoder(
            config.config,
            neuron,
            place("inf2.xlarge", 1, None),
            CompileCache(FolderStore(tmp_path)),
            pooling=Pooling(),
        )
