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
from ridgeline_backends.neuron.commands.compile import compile_model
from ridgeline_backends.neuron.compile import (
    CACHE_VARIABLE,
    CompileCache,
    cache_folder,
    compile_decoder,
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
    cache, placement = CompileCache(tmp_path), place("inf2.xlarge", 2, None)
    first = compile_decoder(LLAMA, NEURON, placement, cache)
    assert (first.cached, len(first.modules)) == (0, 6)
    again = compile_decoder(LLAMA, NEURON, placement, CompileCache(tmp_path))
    assert again.cached == 6
    assert again.modules == first.modules
    for changed in (replace(NEURON, batch_size=2), replace(NEURON, fused_qkv=True)):
        assert compile_decoder(LLAMA, changed, placement, cache).cached == 0
    elsewhere = place("trn2.3xlarge", 2, None)
    assert compile_decoder(LLAMA, NEURON, elsewhere, cache).cached == 0


def test_a_longer_bucket_takes_longer(tmp_path: Path) -> None:
    made = compile_decoder(LLAMA, NEURON, place("inf2.xlarge", 2, None), CompileCache(tmp_path))
    for phase in ("context_encoding", "token_generation"):
        times = [one.seconds for one in made.modules if one.phase == phase]
        assert times == sorted(times)
        assert len(set(times)) == 3
    assert all(one.low <= one.seconds <= one.high for one in made.modules)


def test_several_may_write_at_once(tmp_path: Path) -> None:
    placement = place("inf2.xlarge", 2, None)

    def run(_: int) -> Any:
        return compile_decoder(LLAMA, NEURON, placement, CompileCache(tmp_path)).modules

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(8)))
    assert all(one == found[0] for one in found)
    assert compile_decoder(LLAMA, NEURON, placement, CompileCache(tmp_path)).cached == 6
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_a_module_that_is_cut_short_is_compiled_again(tmp_path: Path) -> None:
    placement, cache = place("inf2.xlarge", 2, None), CompileCache(tmp_path)
    compile_decoder(LLAMA, NEURON, placement, cache)
    broken = next(tmp_path.rglob("module.json"))
    broken.write_text(broken.read_text()[:20])
    assert compile_decoder(LLAMA, NEURON, placement, cache).cached == 5
    assert compile_decoder(LLAMA, NEURON, placement, cache).cached == 6


def test_what_does_not_fit_or_cannot_be_placed_is_refused(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path)
    with pytest.raises(DoesNotFit, match="Choose one of: 1, 2, 4, 8, 24"):
        compile_decoder(
            LLAMA, replace(NEURON, tp_degree=16), place("inf2.48xlarge", 16, None), cache
        )
    large = replace(NEURON, batch_size=2048, seq_len=8192)
    with pytest.raises(DoesNotFit, match="Allocation Failure"):
        compile_decoder(LLAMA, large, place("inf2.xlarge", 2, None), cache)


def test_the_cache_is_where_the_variable_says() -> None:
    assert cache_folder({CACHE_VARIABLE: "/tmp/x"}) == Path("/tmp/x")
    assert cache_folder({CACHE_VARIABLE: "file:///tmp/x"}) == Path("/tmp/x")
    with pytest.raises(InvalidInput, match="s3://bucket"):
        cache_folder({CACHE_VARIABLE: "s3://bucket/cache"})


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
    assert "token_generation" in shown.output
    assert "0 of 6 modules" in shown.output
    again = CliRunner().invoke(app, [*given, "--json"])
    assert json.loads(again.output)["cached"] == 6
    assert json.loads(again.output)["core_bytes"]["model constants"] > 2**30


def test_a_public_model_compiles_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    app = Typer()
    app.command()(compile_model)
    given = ["llama-3.1-8b", "--instance", "inf2.48xlarge", "--tp", "8"]
    shown = CliRunner().invoke(app, [*given, "--batch", "4", "--seq", "4096", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert {one["bucket"] for one in found["modules"]} == {128, 256, 512, 1024, 2048, 4096}
    # 16 GB of bf16 weights over 8 cores.
    assert found["core_bytes"]["model constants"] == pytest.approx(16.06e9 / 8, rel=0.02)
