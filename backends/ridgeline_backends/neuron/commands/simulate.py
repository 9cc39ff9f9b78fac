"""``ridgeline neuron simulate``: a model server under load on an instance that you do not have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli._common import AsJson, print_json, print_table
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.compile import Quantize
from ridgeline_backends.neuron.commands.models import config_of, encoder_of

if TYPE_CHECKING:
    from ridgeline_backends.neuron.serving.load import Load
    from ridgeline_backends.neuron.serving.outcome import Outcome

_SHARES = (0.5, 0.9, 0.99)


def simulate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a public model, or a config.json.")
    ],
    instance: Annotated[str, typer.Option("--instance", metavar="TYPE", help="Instance type.")],
    rps: Annotated[
        float | None, typer.Option("--rps", min=0.001, help="Requests a second to the instance.")
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", min=1, help="Clients that ask again when answered.")
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option("--tp", min=1, help="Tensor-parallel degree; left out: one device's."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=1, help="Left out: as many as there is room.")
    ] = None,
    lnc: Annotated[
        int | None, typer.Option("--lnc", min=1, help="Physical cores of a logical.")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Sequences that decode at once.")
    ] = 8,
    quantize: Annotated[
        Quantize | None, typer.Option("--quantize", help="The matrices in 8 bits.")
    ] = None,
    prompt: Annotated[int, typer.Option("--prompt", "--input", min=1, help="Tokens.")] = 128,
    answer: Annotated[int, typer.Option("--answer", "--output", min=1, help="Tokens.")] = 128,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many to send.")] = 2000,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Requests at even distances, not by chance.")
    ] = False,
    synchronous: Annotated[
        bool, typer.Option("--sync", help="The host's work before each step, not beside it.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the arrivals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Throughput, time to first token and time between tokens under a load, predicted."""
    if (rps is None) == (clients is None):
        raise InvalidInput("A load has --rps or --clients.", hint="Give one of the two.")
    if rps is not None and not math.isfinite(rps):
        raise InvalidInput(f"--rps {rps} is no rate.", hint="Give requests a second, like 2.5.")
    from ridgeline_backends.neuron.buckets import power_of_two
    from ridgeline_backends.neuron.builders.configs import (  # numpy
        context_length,
        decoder_architecture,
    )
    from ridgeline_backends.neuron.config import NeuronConfig
    from ridgeline_backends.neuron.placement import place
    from ridgeline_backends.neuron.serving.load import Lengths, Load
    from ridgeline_backends.neuron.serving.replica import replica_of

    model_config = config_of(model, encoders=False)
    if encoder_of(model_config) is not None:
        raise InvalidInput(
            f"{model} is an encoder: it writes no tokens, and no scheduler serves it.",
            hint="`ridgeline plan` has --rps for encoders too.",
        )
    longest = context_length(model_config) or power_of_two(prompt + answer)
    if prompt + answer > longest:
        raise InvalidInput(
            f"A prompt and its answer of {prompt + answer} tokens are above the context length "
            f"{longest} of {model}.",
            hint="Lower --prompt or --answer.",
        )
    placement = place(instance, tp, lnc)
    count = replicas or max(1, placement.room)
    for reason in replace(placement, copies=count).refusals:
        raise InvalidInput(reason)
    config = NeuronConfig(
        tp_degree=placement.cores,
        batch_size=batch,
        seq_len=min(power_of_two(prompt + answer), longest),
        max_context_length=min(power_of_two(prompt), longest),
        is_continuous_batching=True,
        on_device_sampling=True,
        output_logits=False,
        async_mode=not synchronous,
        fused_qkv=True,
        logical_nc_config=placement.lnc,
        quantized=quantize is not None,
    )
    load = Load(
        lengths=Lengths(prompt=prompt, answer=answer),
        rate=None if rps is None else rps / count,
        clients=None if clients is None else -(-clients // count),
        arrivals="fixed" if fixed else "poisson",
        requests=requests,
        seed=seed,
    )
    replica = replica_of(decoder_architecture(model_config), config, placement)
    found, (fast, slow) = replica.run(load), replica.bounds(load)
    price = placement.instance.price_usd_h
    title = (
        f"{count} x TP {placement.cores} on {placement.instance.name} (LNC {placement.lnc}), batch "
        f"{batch}, weights {quantize or 'bf16'}: {_said(load, count)}, {prompt} tokens in, "
        f"{answer} out; {replica.label}"
    )
    if as_json:
        print_json(_as_json(title, replica.label, count, price, found, fast, slow))
    else:
        _print(title, count, price, found, fast, slow)


def _said(load: Load, count: int) -> str:
    if load.clients is not None:
        return f"{load.clients * count} clients"
    return f"{(load.rate or 0) * count:g} requests a second"


def _figures(found: Outcome, count: int, price: float | None) -> dict[str, float]:
    tokens = found.tokens_s * count
    figures = {"requests_s": found.requests_s * count, "tokens_s": tokens}
    figures["utilisation"] = found.utilisation
    for name, of in (("ttft", found.ttft), ("inter_token", found.gap), ("latency", found.latency)):
        figures |= {f"{name}_p{round(100 * share)}_s": of(share) for share in _SHARES}
    if price is not None and tokens:
        figures["usd_per_million_tokens"] = price / 3600 / tokens * 1e6
    return figures


def _as_json(
    title: str, label: str, count: int, price: float | None, *outcomes: Outcome
) -> dict[str, object]:
    found, fast, slow = (_figures(one, count, price) for one in outcomes)
    return {
        "setting": title,
        "label": label,
        **found,
        "if_every_step_is_at_its_low": fast,
        "if_every_step_is_at_its_high": slow,
    }


def _print(title: str, count: int, price: float | None, *outcomes: Outcome) -> None:
    found, fast, slow = (_figures(one, count, price) for one in outcomes)
    rows = [
        (_words(name), *(_number(name, one[name]) for one in (found, fast, slow)))
        for name in found
        if name in fast and name in slow
    ]
    typer.echo(title)
    print_table(("", "PREDICTED", "AT THE LOW END", "AT THE HIGH END"), rows)


def _words(name: str) -> str:
    units = {"requests_s": "requests/s", "tokens_s": "tokens/s", "utilisation": "utilisation"}
    if name in units:
        return units[name]
    if name.startswith("usd"):
        return "USD/M tokens"
    return name.removesuffix("_s").replace("_p", " p").replace("_", "-") + " ms"


def _number(name: str, value: float) -> str:
    if name == "utilisation":
        return f"{value:.0%}"
    if name in ("requests_s", "tokens_s") or name.startswith("usd"):
        return f"{value:.4g}"
    return f"{value * 1e3:.4g}"
