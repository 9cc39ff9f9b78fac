"""A model on a setting as a replica to put under load: a decoder by the scheduler that serves, an
encoder by whole requests. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.buckets import power_of_two
from ridgeline_backends.neuron.builders.configs import context_length, decoder_architecture
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.encoder_calls import calls_of
from ridgeline_backends.neuron.encoder_plan import LONGEST, MOST_TEXTS, encoder_programs
from ridgeline_backends.neuron.jobs.options import InvalidOrder
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.placement import Placement
from ridgeline_backends.neuron.plan import out_of_memory
from ridgeline_backends.neuron.planning.ranking import Setting
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.serving.outcome import Outcome
from ridgeline_backends.neuron.serving.replica import replica_of
from ridgeline_backends.neuron.serving.requests import answer_each
from ridgeline_backends.neuron.timing.predict import predict

_LENGTH_VARIABLES = "OPTION_MAX_MODEL_LEN or MAX_TOTAL_TOKENS"


@dataclass(frozen=True, slots=True)
class Served:
    """`run`: one group of cores under a load of requests of these `lengths`. `positions`: of a
    sequence; None: as many as an endpoint has unless told."""

    run: Callable[[Load], Outcome]
    lengths: Lengths
    core_bytes: int
    label: str
    positions: int | None = None


def served_decoder(
    config: Mapping[str, object], asked: Lengths, setting: Setting, length: int | None
) -> Served:
    """`length`: positions of a sequence, if they were given; the model has room for what is asked
    of it otherwise. All that an endpoint compiles is held to the core. Raises `DoesNotFit`, and
    `InvalidOrder` for lengths that the model has not."""
    placement = Placement(setting.instance, setting.lnc, setting.tp)
    neuron = NeuronConfig(
        tp_degree=setting.tp,
        batch_size=setting.batch,
        seq_len=_positions(context_length(config), asked, length),
        is_continuous_batching=True,
        on_device_sampling=True,
        output_logits=False,
        async_mode=True,
        fused_qkv=True,
        quantized=setting.quantized,
    )
    replica = replica_of(decoder_architecture(config), neuron, placement)
    return Served(replica.run, asked, replica.core_bytes, replica.label, neuron.seq_len)


def _positions(declared: int | None, asked: Lengths, length: int | None) -> int:
    """Of a sequence: as given, else as requests take. `declared`: by the model, if it says so."""
    _check_length(declared, length)
    wanted = asked.prompt + asked.answer
    if length is None:
        return min(power_of_two(wanted), declared or power_of_two(wanted))
    if asked.prompt >= length:
        raise InvalidOrder(
            f"The prompt has {asked.prompt} tokens; this model takes at most {length - 1}.",
            hint=f"Shorten the prompt, or raise {_LENGTH_VARIABLES}.",
        )
    if wanted > length:
        raise InvalidOrder(
            f"A prompt of {asked.prompt} tokens and an answer of {asked.answer} are above the "
            f"context length of {length}.",
            hint=f"Shorten them, or raise {_LENGTH_VARIABLES}.",
        )
    return length


def _check_length(declared: int | None, length: int | None) -> None:
    """As an endpoint refuses it."""
    if length is not None and declared is not None and length > declared:
        raise InvalidOrder(
            f"A context length of {length} was asked for; the model has {declared}.",
            hint=f"Set {_LENGTH_VARIABLES} to at most {declared}.",
        )


def served_encoder(
    model: EncoderConfig, lengths: Sequence[int], setting: Setting, length: int | None
) -> Served:
    """A request has texts of these lengths, and waits for those before it. Whatever batch was asked
    for, an endpoint compiles `MOST_TEXTS` at most. Raises `DoesNotFit`, and `InvalidOrder` for a
    length that the model has not."""
    _check_length(model.context_length, length)
    placement = Placement(setting.instance, setting.lnc, setting.tp)
    neuron = NeuronConfig(
        tp_degree=setting.tp,
        batch_size=min(setting.batch, MOST_TEXTS),
        seq_len=min(length or LONGEST, model.context_length),
    )
    longest = max(lengths)
    if longest > neuron.seq_len:
        raise DoesNotFit(
            [f"Texts of {longest} tokens are above the {neuron.seq_len} positions."],
            hint=f"Set {_LENGTH_VARIABLES} to at least as many.",
        )
    programs = encoder_programs(model, neuron, Pooling())
    need = core_need(programs, placement.instance.chip)
    if need.total > placement.core_memory_bytes:
        raise DoesNotFit([out_of_memory(need, placement)])
    times = {(one.bucket, one.batch): predict(one, placement.machine) for one in programs}

    def seconds(bucket: int, batch: int) -> float:
        return times[bucket, batch].seconds

    calls = calls_of(lengths, neuron.context_buckets, neuron.batch_size, seconds)
    took = sum(seconds(call.bucket, call.batch) for call in calls)
    label = next(iter(times.values())).label
    return Served(partial(answer_each, took), Lengths(prompt=1, answer=1), need.total, label)
