"""``ridgeline compile``: a model for a simulated instance type, bucket by bucket."""

from __future__ import annotations

from dataclasses import asdict, replace
from enum import StrEnum
from typing import Annotated

import typer

from ridgeline.cli._common import AsJson, print_json, print_table, say
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.models import (
    check_length,
    config_of,
    encoder_of,
    pooling_of,
)

_USUAL = 2048
"""Positions where nobody asked for a number."""


class Quantize(StrEnum):
    """What matrices may be kept as, beside bf16."""

    INT8 = "int8"


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
    batch: Annotated[
        int,
        typer.Option("--batch", min=1, help="Sequences that decode, or texts of a call."),
    ] = 1,
    seq: Annotated[
        int | None,
        typer.Option(
            "--seq",
            min=1,
            help="Positions of a sequence, or of a text.",
            show_default="2048, or an encoder's longest text if that is shorter",
        ),
    ] = None,
    lnc: Annotated[
        int | None, typer.Option("--lnc", min=1, help="Physical cores per logical NeuronCore.")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option("--quantize", help="Of a decoder: its matrices in 8 bits.")
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
    from ridgeline_backends.neuron.compile import BucketDone, compile_decoder, compile_encoder
    from ridgeline_backends.neuron.compile_cache import open_cache
    from ridgeline_backends.neuron.config import NeuronConfig
    from ridgeline_backends.neuron.devices import instances
    from ridgeline_backends.neuron.placement import executes, place

    types = sorted(one for one in instances() if not executes(one))
    name = instance.removeprefix("ml.")
    if name not in types:
        why = executes(name) if name in instances() else "no devices of it are simulated"
        raise InvalidInput(
            f"Nothing is compiled for {instance}: {why}.", hint=f"Choose one of {', '.join(types)}."
        )
    placement = place(instance, tp, lnc)
    config = config_of(model)
    encoder = encoder_of(config)
    longest = encoder.context_length if encoder is not None else check_length(config, seq)
    neuron = NeuronConfig(
        tp_degree=placement.cores,
        batch_size=batch,
        seq_len=seq or min(_USUAL, longest or _USUAL),
        logical_nc_config=lnc,
        quantized=quantize is not None,
    )

    def progress(bucket: BucketDone) -> None:
        one, how = bucket.module, "from cache" if bucket.fetched else "compiled"
        left = f", {bucket.left_s:.1f} s left" if bucket.done < bucket.total else ""
        program = f"{one.phase} {one.bucket}, batch {one.batch}"
        say(f"[{bucket.done}/{bucket.total}] {program}: {how}{left}")

    kept = open_cache(cache)
    if encoder is not None:
        made = compile_encoder(
            encoder, neuron, placement, kept, pooling=pooling_of(model), progress=progress
        )
    else:
        neuron = replace(
            neuron, is_continuous_batching=True, on_device_sampling=True, fused_qkv=True
        )
        made = compile_decoder(config, neuron, placement, kept, progress=progress)
    say(f"compile: {made.words}")
    if as_json:
        print_json(
            {
                "modules": [asdict(one) for one in made.modules],
                "cached": made.cached,
                "cache": made.place,
                "instance_type": placement.instance.name,
                "tp": placement.cores,
                "lnc": placement.lnc,
                "quantize": quantize,
                "core_bytes": made.need.table(),
                "core_bytes_available": placement.core_memory_bytes,
            }
        )
        return
    cores = "1 core" if placement.cores == 1 else f"{placement.cores} cores"
    typer.echo(
        f"{model} for {cores} (TP {placement.cores}) of {placement.instance.name} at LNC "
        f"{placement.lnc}, batch {batch}, weights {quantize or 'bf16'}. GFLOP and MB are those of "
        "each core."
    )
    print_table(
        ("PHASE", "BUCKET", "BATCH", "INSTRUCTIONS", "GFLOP", "MB", "MS", "90% INTERVAL", "LABEL"),
        [
            (
                one.phase,
                one.bucket,
                one.batch,
                f"{one.instructions:,}",
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
