"""``ridgeline neuron profile``: one step of a model as a trace for Perfetto or Chrome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli._common import say
from ridgeline_backends.neuron.commands.compile import config_of


def profile(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a public model, or a config.json.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The trace; NAME.trace.json, here, if left out."),
    ] = None,
    instance: Annotated[
        str, typer.Option("--instance", metavar="TYPE", help="Instance type, like inf2.48xlarge.")
    ] = "inf2.xlarge",
    tp: Annotated[
        int | None, typer.Option("--tp", min=1, help="Cores; those of one device if left out.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences that decode.")] = 1,
    seq: Annotated[int, typer.Option("--seq", min=1, help="Positions of a sequence.")] = 2048,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="A prompt of all positions, not a token each.")
    ] = False,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores in the trace.")] = 2,
) -> None:
    """Write what engines, DMA queues and collectives do in one step, operation by operation."""
    # Here, because they read data that --help does without.
    from ridgeline_backends.errors import DoesNotFit
    from ridgeline_backends.neuron.builders.build import build_decoder
    from ridgeline_backends.neuron.builders.site import Phase
    from ridgeline_backends.neuron.config import NeuronConfig
    from ridgeline_backends.neuron.placement import place
    from ridgeline_backends.neuron.profile import trace

    placement = place(instance, tp, None)
    if placement.refusals:
        raise DoesNotFit(placement.refusals)
    neuron = NeuronConfig(
        tp_degree=placement.cores, batch_size=batch, seq_len=seq, on_device_sampling=True,
        is_continuous_batching=True, fused_qkv=True,
    )  # fmt: skip
    phase = Phase.CONTEXT_ENCODING if prompt else Phase.TOKEN_GENERATION
    program = build_decoder(config_of(model), neuron, phase=phase, bucket=seq)
    found = trace(program, placement.machine, min(cores, placement.cores))
    # In the working folder, whether the model is a public name or a path.
    output = output or Path(f"{Path(model).resolve().name.removesuffix('.json')}.trace.json")
    output.write_text(json.dumps(found), encoding="utf-8")
    say(f"{output} holds one step of {placement.cores} cores; open it at https://ui.perfetto.dev.")
