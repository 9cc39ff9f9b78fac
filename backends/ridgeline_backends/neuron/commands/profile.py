"""``ridgeline neuron profile``: one step of a model, or of an endpoint, as a trace for Perfetto."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline._names import is_name
from ridgeline.cli._common import DataDir, open_session, say
from ridgeline.errors import (
    AccessDenied,
    InvalidInput,
    NotFound,
    NotReady,
    NotRunning,
    Unavailable,
)
from ridgeline_backends.neuron.commands.files import check_writable
from ridgeline_backends.neuron.commands.models import (
    check_length,
    config_of,
    encoder_of,
    pooling_of,
)

if TYPE_CHECKING:
    from ridgeline_backends.neuron.placement import Placement
    from ridgeline_backends.neuron.program import Program

_USUAL = 2048
"""Positions where nobody asked for a number."""


def profile(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|ENDPOINT",
            help="An endpoint, as it was compiled; or a public model's name, or a config.json.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The trace; NAME.PHASE.trace.json, here, if left out."),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            metavar="TYPE",
            help="Of a model: instance type, like inf2.48xlarge.",
            show_default="inf2.xlarge",
        ),
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option("--tp", min=1, help="Of a model: cores; those of one device if left out."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            help="Of a model: sequences that decode, texts of a call.",
            show_default="1",
        ),
    ] = None,
    seq: Annotated[
        int | None,
        typer.Option(
            "--seq",
            min=1,
            help="Positions of a sequence, or of a text; the compiled ones of an endpoint.",
            show_default="2048, or an encoder's longest text if that is shorter",
        ),
    ] = None,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="A prompt of all positions, not a token each.")
    ] = False,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores in the trace.")] = 2,
    data_dir: DataDir = None,
) -> None:
    """Write what engines, DMA queues and collectives do in one step, operation by operation."""
    from ridgeline_backends.neuron.profile import trace  # numpy: not for --help

    if output is not None:
        check_writable(output, "--output")
    device = None if Path(model).exists() else _device(model, data_dir)
    if device is not None and instance is not None and _is_public(model):
        device = None  # an endpoint has no --instance: the model of that name is meant
    if device is not None:
        _refuse_of_models(model, {"--instance": instance, "--tp": tp, "--batch": batch})
        placement, program = _of_endpoint(device, prompt, seq)
    else:
        placement, program = _of_model(model, instance, tp, batch or 1, seq, prompt)
    if output is None:
        # In the working folder, whether the model is a public name or a path.
        name = Path(model).resolve().name.removesuffix(".json")
        output = Path(f"{name}.{program.phase}.trace.json")
    found = trace(program, placement.machine, min(cores, placement.cores))
    output.write_text(json.dumps(found), encoding="utf-8")
    of = f"endpoint {model}" if device is not None else model
    say(
        f"{output} holds one step of {of} ({program.phase}, bucket {program.bucket}, batch "
        f"{program.batch}) on {placement.cores} cores of {placement.instance.name}; open it at "
        "https://ui.perfetto.dev."
    )


def _device(name: str, data_dir: Path | None) -> Mapping[str, Any] | None:
    """What an endpoint of that name runs on; None where a public model has the name, or nothing.
    Raises what keeps an endpoint from being profiled."""
    if not is_name(name):
        return None
    try:
        replicas = open_session(data_dir).api.get("endpoints", name, "simulated")["replicas"]
    except NotFound:
        return None
    except (NotRunning, Unavailable, AccessDenied) as error:
        if not _is_public(name):
            say(f"warning: whether {name} is an endpoint is not known: {error.message}")
        return None
    except (InvalidInput, NotReady):
        if _is_public(name):
            return None
        raise
    found: Mapping[str, Any] = replicas[0]["device"]
    return found


def _is_public(name: str) -> bool:
    from ridgeline_backends.neuron.catalogue import known_language_model  # yaml: not for --help

    return known_language_model(name) is not None


def _refuse_of_models(endpoint: str, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise InvalidInput(
            f"{' and '.join(given)} {verb} of models, and {endpoint} is an endpoint, which is "
            "profiled as it is compiled.",
            hint="Leave out what is of models; --seq and --prompt choose among its programs.",
        )


def _of_endpoint(
    device: Mapping[str, Any], prompt: bool, seq: int | None
) -> tuple[Placement, Program]:
    """The program that a step of it runs, or a call for one text; of the longest bucket, or of one
    that holds `seq`."""
    # Here, because they read data that --help does without.
    from ridgeline_backends.neuron.builders.site import Phase
    from ridgeline_backends.neuron.builders.text_encoder import ENCODING
    from ridgeline_backends.neuron.placement import place

    phase: str = Phase.CONTEXT_ENCODING if prompt else Phase.TOKEN_GENERATION
    if any(one["phase"] == ENCODING for one in device["calls"]):
        phase = ENCODING
    calls = [one for one in device["calls"] if one["phase"] == phase]
    longest = max(one["bucket"] for one in calls)
    fitting = [one for one in calls if one["bucket"] >= (seq or longest)]
    if not fitting:
        raise InvalidInput(f"--seq {seq} is above {longest}, the longest that was compiled.")
    call = min(fitting, key=lambda one: (int(one["bucket"]), int(one["batch"])))
    lnc = device["logical_neuroncore_config"]
    return place(device["instance_type"], device["neuron_cores"], lnc), _program(device, call)


def _program(device: Mapping[str, Any], call: Mapping[str, Any]) -> Program:
    # Here, because they read data that --help does without.
    from ridgeline_backends.models.config import architecture, decoder_config
    from ridgeline_backends.models.encoder_config import encoder_config
    from ridgeline_backends.models.sentence_files import Pooling
    from ridgeline_backends.neuron.builders.architecture import dense
    from ridgeline_backends.neuron.builders.decoder import decoder_program
    from ridgeline_backends.neuron.builders.rules import NXDI
    from ridgeline_backends.neuron.builders.site import Phase
    from ridgeline_backends.neuron.builders.text_encoder import ENCODING, text_encoder_program
    from ridgeline_backends.neuron.config import neuron_config

    config, neuron = device["config"], neuron_config(device["neuron_config"])
    bucket, batch = call["bucket"], call["batch"]
    if call["phase"] == ENCODING:
        model = encoder_config(config, architecture(config))
        return text_encoder_program(model, neuron, pooling=Pooling(), bucket=bucket, batch=batch)
    return decoder_program(
        dense(decoder_config(config)),
        neuron,
        phase=Phase(call["phase"]),
        bucket=bucket,
        rules=NXDI,
        batch=batch,
    )


def _of_model(
    model: str, instance: str | None, tp: int | None, batch: int, seq: int | None, prompt: bool
) -> tuple[Placement, Program]:
    # Here, because they read data that --help does without.
    from ridgeline_backends.errors import DoesNotFit
    from ridgeline_backends.neuron.builders.build import build_decoder
    from ridgeline_backends.neuron.builders.site import Phase
    from ridgeline_backends.neuron.builders.text_encoder import text_encoder_program
    from ridgeline_backends.neuron.config import NeuronConfig
    from ridgeline_backends.neuron.encoder_plan import encoder_programs
    from ridgeline_backends.neuron.encoder_planner import bucket_for
    from ridgeline_backends.neuron.placement import place

    config = config_of(model)
    placement = place(instance, tp, None)
    if placement.refusals:
        raise DoesNotFit(placement.refusals)
    encoder = encoder_of(config)
    if encoder is not None:
        bucket = bucket_for(encoder, seq or min(_USUAL, encoder.context_length))
        neuron = NeuronConfig(tp_degree=placement.cores, batch_size=batch, seq_len=bucket)
        _check_fit(encoder_programs(encoder, neuron, pooling_of(model)), placement)
        return placement, text_encoder_program(
            encoder, neuron, pooling=pooling_of(model), bucket=bucket, batch=batch
        )
    longest = check_length(config, seq)
    bucket = seq or min(_USUAL, longest or _USUAL)
    neuron = NeuronConfig(
        tp_degree=placement.cores, batch_size=batch, seq_len=bucket, on_device_sampling=True,
        is_continuous_batching=True, fused_qkv=True,
    )  # fmt: skip
    buckets = [(Phase.CONTEXT_ENCODING, size) for size in neuron.context_buckets]
    buckets += [(Phase.TOKEN_GENERATION, size) for size in neuron.generation_buckets]
    programs = [build_decoder(config, neuron, phase=phase, bucket=size) for phase, size in buckets]
    _check_fit(programs, placement)
    wanted = Phase.CONTEXT_ENCODING if prompt else Phase.TOKEN_GENERATION
    return placement, programs[buckets.index((wanted, bucket))]


def _check_fit(programs: Sequence[Program], placement: Placement) -> None:
    """As `ridgeline compile` does: a trace is of what could run. Raises `DoesNotFit`."""
    # Here, because they read data that --help does without.
    from ridgeline_backends.errors import DoesNotFit
    from ridgeline_backends.neuron.liveness import core_need
    from ridgeline_backends.neuron.plan import program_refusals

    if refusals := program_refusals(
        programs, core_need(programs, placement.instance.chip), placement
    ):
        raise DoesNotFit(
            refusals,
            hint="Take more cores by --tp, or another type by --instance; `ridgeline plan` lists "
            "what a model fits on.",
        )
