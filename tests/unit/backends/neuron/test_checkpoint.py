"""Weights in one file per core: exact, and never the whole model at once."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import InvalidModel
from ridgeline_backends.models.config import decoder_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.neuron.checkpoint import (
    SETTINGS,
    reshard_checkpoint,
    shard_checkpoint,
    shard_file,
)
from ridgeline_backends.neuron.commands import app
from ridgeline_backends.neuron.config import NeuronConfig


def read(folder: Path, degree: int) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / shard_file(core)) for core in range(degree)]


def same(one: Path, other: Path, degree: int) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
        for mine, theirs in zip(read(one, degree), read(other, degree), strict=True)
    )


@pytest.mark.parametrize(("fused", "vocab_parallel"), [(True, False), (False, True)])
def test_any_degree_is_cut_from_any_other_exactly(
    make_llama: Any, tmp_path: Path, fused: bool, vocab_parallel: bool
) -> None:
    """6 heads on 2 KV heads: padded, copied and converted to one KV head a query on the way."""
    model_dir = make_llama()
    model = decoder_config(read_json(model_dir / "config.json"))
    for degree in (1, 3, 4, 8):
        config = NeuronConfig(
            tp_degree=degree, seq_len=64, fused_qkv=fused, vocab_parallel=vocab_parallel
        )
        shard_checkpoint(model_dir, tmp_path / f"{degree}", model, config)
    for former in (3, 8):
        for degree in (1, 4):
            out = tmp_path / f"{former}-{degree}"
            reshard_checkpoint(tmp_path / f"{former}", out, model, degree)
            assert same(out, tmp_path / f"{degree}", degree), f"{former} -> {degree}"


def test_a_core_reads_its_own_file_and_no_more(make_llama: Any, tmp_path: Path) -> None:
    model_dir = make_llama()
    model = decoder_config(read_json(model_dir / "config.json"))
    seen: list[tuple[int, int]] = []
    shard_checkpoint(
        model_dir,
        tmp_path,
        model,
        NeuronConfig(tp_degree=4, seq_len=64),
        lambda done, total: seen.append((done, total)),
    )
    sizes = [(tmp_path / shard_file(core)).stat().st_size for core in range(4)]
    assert len(set(sizes)) == 1
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert read(tmp_path, 1)[0]["layers.0.mlp.gate_up"].shape == (2 * 20, 48)


def test_files_that_are_not_all_there_are_refused(make_llama: Any, tmp_path: Path) -> None:
    model_dir = make_llama()
    model = decoder_config(read_json(model_dir / "config.json"))
    shard_checkpoint(model_dir, tmp_path / "a", model, NeuronConfig(tp_degree=2, seq_len=64))
    (tmp_path / "a" / shard_file(1)).unlink()
    with pytest.raises(InvalidModel, match="tp1_sharded_checkpoint"):
        reshard_checkpoint(tmp_path / "a", tmp_path / "b", model, 4)
    with pytest.raises(InvalidModel, match=SETTINGS):
        reshard_checkpoint(tmp_path / "none", tmp_path / "b", model, 4)


def test_sharding_never_holds_the_model(make_llama: Any, tmp_path: Path) -> None:
    """Eight layers more make the files larger, and the most that is held at once not."""

    def held(layers: int) -> int:
        model_dir = make_llama(num_hidden_layers=layers)
        model = decoder_config(read_json(model_dir / "config.json"))
        most = 0

        def watch(done: int, total: int) -> None:
            nonlocal most
            if done % (total // 4) == 0:  # to look at all of Python's objects takes its time
                most = max(most, alive())

        config = NeuronConfig(tp_degree=2, seq_len=64)
        before = alive()
        shard_checkpoint(model_dir, tmp_path / f"{layers}", model, config, watch)
        return most - before

    assert held(12) < held(4) * 1.5


def alive() -> int:
    """Bytes of all tensors that Python holds, but for those that a library keeps in a form of its
    own, as other tests of this process may have left them."""
    storages = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in gc.get_objects()
        if type(one) is torch.Tensor and one.layout is torch.strided
    }
    return sum(storages.values())


def test_the_command_cuts_a_checkpoint_and_cuts_it_anew(make_llama: Any, tmp_path: Path) -> None:
    run = CliRunner().invoke
    model = str(make_llama())
    for degree in (1, 4):
        assert run(app, ["reshard", model, str(tmp_path / f"{degree}"), "--tp", f"{degree}"])
    back = tmp_path / "back"
    found = run(app, ["reshard", str(tmp_path / "4"), str(back), "--tp", "1"])
    assert found.exit_code == 0, found.output
    assert "1 files of" in found.output
    assert same(back, tmp_path / "1", 1)
    again = run(app, ["reshard", model, str(back), "--tp", "1"])
    assert isinstance(again.exception, InvalidInput)
