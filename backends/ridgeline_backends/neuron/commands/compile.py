"""``ridgeline compile``: a model for a simulated instance type, bucket by bucket."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ridgeline.cli._common import AsJson, print_json, print_table, say
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.models import config_of


def compile_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a public model, or a config.json.")
    ],
    instance: Annotated[
        str, typer.Option("--instance", metavar="TYPE", help="Instance type, like inf2.48xlarge.")
    ],
    tp: Annotated[
        int | None, typer.Option("--tp", min=1, help="Cores; those of one device if left out.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences that decode.")] = 1,
    seq: Annotated[int, typer.Option("--seq", min=1, help="Positions of a sequence.")] = 2048,
    lnc: Annotated[
        int | None, typer.Option("--lnc", help="Physical cores per logical NeuronCore.")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--cache",
            metavar="PLACE",
            help="Compile cache: a folder, or s3://BUCKET/PREFIX.",
            show_default="NEURON_COMPILE_CACHE_URL, else a folder below ~/.cache",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile a model for simulated cores, and say what a call takes and what fills a core."""
    # Here, because they read data that --help does without.
    from ridgeline_backends.neuron.compile import BucketDone, compile_decoder
    from ridgeline_backends.neuron.compile_cache import open_cache
    from ridgeline_backends.neuron.config import NeuronConfig
    from ridgeline_backends.neuron.placement import executes, place

    if refusal := executes(instance):
        raise InvalidInput(f"Nothing is compiled for {instance}: {refusal}.")
    placement = place(instance, tp, lnc)
    neuron = NeuronConfig(
        tp_degree=placement.cores,
        batch_size=batch,
        seq_len=seq,
        logical_nc_config=lnc,
        is_continuous_batching=True,
        on_device_sampling=True,
        fused_qkv=True,
    )

    def progress(bucket: BucketDone) -> None:
        one, how = bucket.module, "from cache" if bucket.fetched else "compiled"
        left = f", {bucket.left_s:.1f} s left" if bucket.done < bucket.total else ""
        say(f"[{bucket.done}/{bucket.total}] {one.phase} {one.bucket}: {how}{left}")

    made = compile_decoder(
        config_of(model), neuron, placement, open_cache(cache), progress=progress
    )
    say(f"compile: {made.words}")
    if as_json:
        print_json(
            {
                "modules": [asdict(one) for one in made.modules],
                "cached": made.cached,
                "cache": made.place,
                "core_bytes": made.need.table(),
                "core_bytes_available": placement.core_memory_bytes,
            }
        )
        return
    print_table(
        ("PHASE", "BUCKET", "BATCH", "GFLOP", "MB", "MS", "90% INTERVAL", "LABEL"),
        [
            (
                one.phase,
                one.bucket,
                one.batch,
                f"{one.flops / 1e9:.1f}",
                f"{one.bytes / 1e6:.0f}",
                f"{one.seconds * 1e3:.2f}",
                f"{one.low * 1e3:.2f} - {one.high * 1e3:.2f}",
                one.label,
            )
            for one in made.modules
        ],
    )
    print_table(
        ("CORE MEMORY", "MB"),
        [
            *((name, f"{size / 2**20:.1f}") for name, size in made.need.table().items()),
            (
                "total",
                f"{made.need.total / 2**20:.1f} of {placement.core_memory_bytes / 2**20:.0f}",
            ),
        ],
    )
