"""``ridgeline neuron reshard``: a checkpoint as one file per core, or files cut for other cores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli._common import say
from ridgeline.errors import InvalidInput
from ridgeline_backends.models.reader import read_json


def reshard(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A model directory, or one that this has written.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A new directory.")],
    tp: Annotated[int, typer.Option("--tp", min=1, help="Cores: files to write.")],
) -> None:
    """Cut a checkpoint for so many cores, a tensor at a time. Cutting back gives the same bits."""
    # Here, because they import torch, which --help does without.
    from ridgeline_backends.models.config import decoder_config
    from ridgeline_backends.neuron.checkpoint import (
        SETTINGS,
        reshard_checkpoint,
        shard_checkpoint,
        shard_file,
    )
    from ridgeline_backends.neuron.config import neuron_config

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInput(f"{target} is there already.", hint="Name a new directory.")
    config = read_json(source / "config.json")
    if not config:
        raise InvalidInput(
            f"{source} has no config.json.",
            hint="It lies in a model directory, and in those that this command writes.",
        )
    model = decoder_config(config)
    if (source / SETTINGS).is_file():
        reshard_checkpoint(source, target, model, tp)
    else:
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
        length = model.context_length
        settings = {"tp_degree": tp, "torch_dtype": dtype, "seq_len": length, "fused_qkv": True}
        shard_checkpoint(source, target, model, neuron_config(settings))
    shutil.copy2(source / "config.json", target / "config.json")
    size = (target / shard_file(0)).stat().st_size
    say(f"{tp} files of {size / 2**20:.1f} MB each are in {target}.")
