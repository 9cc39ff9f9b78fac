"""Rows of a server: one client at a time, or load that our own scheduler is simulated under."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from math import ceil, sqrt

from ridgeline_backends.base import RunnerLimits, SlotLayout
from ridgeline_backends.neuron.builders.rules import OPTIMUM_NEURON
from ridgeline_backends.neuron.calibration.quantity import RUN_S, Quantity, ServingRun, Simulated
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads.decode import (
    SAMPLING_S,
    Decoder,
    accepted_tokens,
    bucket_of,
    decoder_of,
    sequence_length,
)
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.timing.work import Work

_ASYNCHRONOUS_FROM = 31

_FIRST_STEPS = 2.0
"""The host's work for a prompt, in those of a decode step: it hides behind nothing."""

_ENDED_EARLY = 0.94
"""Of the tokens that guidellm asks for: models end some answers before. tok_s over req_s."""

_PER_SAMPLED_S = 1.6e-3
_PER_STREAMED_S = 0.1e-3
"""What each further sequence adds to the host's step, with its token chosen there or only passed
on: by how much a loaded server's steps are longer than an idle one's, between the prompts."""

_VOCABULARY_BYTES = 4
"""A logit on its way to the host."""

_CONNECTIONS = 100
"""httpx opens no more to one server, whatever number of users was asked for."""

_MOST_SLOTS = 4096
"""Sixteen times vLLM's own limit."""

_CROWD = 20_000
"""Of more clients none further is answered in a run."""

_USERS = 128
"""How many users optimum-neuron's script asks for where it is not told."""

_SILENCE_S = 600.0
"""After so long without a token openai's client gives a request up. guidellm 0.1.0 does not hand it
the GUIDELLM__REQUEST_TIMEOUT of 60 s that the script sets: it is for fetching texts."""

_TICK_S = 0.1
"""guidellm 0.1 looks so often whether fewer requests are open than its limit, which it stays one
below."""

_PAUSE_S = 5e-3
"""For each of its clients: one loop reads all their streams and makes up the next prompt."""

_CHUNK = 1024
_CHUNKED_FROM = date(2026, 3, 4)
"""optimum-neuron encodes prompts in parts of so many tokens where sequences can be longer, and has
the first token chosen on the host: the default (benchmark/vllm/chunked-prefill/README.md) since the
measurements of 2026-03-03, which compare it with the prompt as a whole, and say which is which."""

_APART = re.compile(r"[-_:=\s]+")
_IN_PARTS = re.compile(
    r"(?P<no>\b(?:no |not |non |without |un))?chunk(?:ed|ing|s)?\b(?: prefill)?"
    r"(?P<off> (?:off|false|disabled|0)\b)?"
)
_AS_A_WHOLE = re.compile(r"\b(?:standard|whole)\b")
_HOST_SAMPLING = re.compile(r"(?<!\bno )\b(?:cpu|host) sampling\b")

_AS_MANY_AS_SLOTS_BEFORE = date(2026, 1, 1)
"""Until then the script's default of 128 users was printed whatever ran: requests that wait for a
slot are in none of these rows' latencies."""


def serving_quantities(row: Row) -> list[Quantity | Simulated]:
    """Fields of "serving". With one client at a time a request has the machine to itself."""
    slots = row.integer("batch", row.integer("concurrency", 1))
    if slots > _MOST_SLOTS:
        raise UnpredictableRow(
            f"{row.id}: no server is compiled for {slots} sequences at once.",
            hint="`batch` is how many it is compiled for, `concurrency` how many clients ask.",
        )
    alone = _alone(row, slots)
    run = _run(row, slots)
    answer = row.integer("output_len", 250)
    found: list[Quantity | Simulated] = []
    if alone:
        found += _of_one_client(run, answer)
    else:
        found += [
            Simulated("ttft_mean_ms", "serving:load:ttft", run, lambda o: o.ttft_mean, 1e3),
            Simulated("ttft_p50_ms", "serving:load:ttft", run, lambda o: o.ttft(0.5), 1e3),
        ]
        if answer > 1:  # between tokens
            found += [
                Simulated(f"tpot_{one}_ms", "serving:load:tpot", run, lambda o: o.tpot_mean, 1e3)
                for one in ("mean", "p50")
            ]
    rate = "max_tok_s" if alone else "tok_s"
    replicas = row.integer("dp", 1)
    found.append(
        Simulated(rate, "serving:load:tok_s", run, lambda o: o.tokens_s, replicas, rate=True)
    )
    return found


def _of_one_client(run: ServingRun, answer: int) -> list[Quantity]:
    prompt, rest = run.prefill, run.step * (answer - 1)
    whole = Work.total((prompt, rest))
    surely = run.surely.prefill if run.surely is not None else None
    least = Work.total((surely, rest)) if surely is not None else None
    found = []
    for statistic in ("mean", "p50"):
        found += [
            Quantity(f"ttft_{statistic}_ms", "serving:single:ttft", prompt, 1e3, surely=surely),
            Quantity(f"tpot_{statistic}_ms", "serving:single:tpot", run.step, 1e3),
        ]
    found.append(Quantity("tok_s", "serving:single:tok_s", whole, answer, rate=True, surely=least))
    return found


def _run(row: Row, slots: int) -> ServingRun:
    decoder = decoder_of(row, batch=slots)
    length = sequence_length(row)
    prompt = row.integer("input_len", 1024)
    sampled = _HOST_SAMPLING.search(_scheduler(row)) is not None
    logits = slots * decoder.model.vocab_size * _VOCABULARY_BYTES if sampled else 0
    host = Work.host(
        steps=_host_steps(row), gigabytes=logits / 1e9, fixed_s=SAMPLING_S if sampled else 0.0
    )
    step = Work.total((decoder.step(slots, length), host)) * (1 / accepted_tokens(row))
    parts = ceil(prompt / _CHUNK) if _goes_in_parts(row, decoder, length) else 0
    # A prompt is padded on the host before, and its token sent to the client behind the step. Where
    # it goes in parts the host chooses that token, whoever chooses the others.
    first = Work.host(
        steps=_FIRST_STEPS - _host_steps(row),
        fixed_s=SAMPLING_S if parts and not sampled else 0.0,
    )
    device = decoder.chunk(_CHUNK) * parts if parts else _whole(row, decoder, prompt, length)
    load = _load(row, slots, prompt)
    found = ServingRun(
        prefill=Work.total((device, host, first)),
        step=step,
        sequence=Work.host(fixed_s=_PER_SAMPLED_S if sampled else _PER_STREAMED_S),
        limits=_limits(length, prompt, slots),
        load=load,
        full=_full(row, slots, load.lengths) if load.rate is not None else None,
        swept=row.swept,
    )
    turned = decoder.turned_back(_CHUNK) * parts if parts else None
    if turned is None or not len(turned.rows):
        return found
    return replace(found, prefill=Work.total((device, turned, host, first)), surely=found)


def _whole(row: Row, decoder: Decoder, prompt: int, length: int) -> Work:
    """A prompt in one call. optimum-neuron compiles one length for all, the longest."""
    own = decoder.rules is OPTIMUM_NEURON
    return decoder.prefill(1, length if own else bucket_of(row, prompt, length))


def _goes_in_parts(row: Row, decoder: Decoder, length: int) -> bool:
    """As the scheduler's name says; where it says neither, as was the default on that day."""
    if decoder.rules is not OPTIMUM_NEURON or length <= _CHUNK:
        return False
    scheduler = _scheduler(row)
    parts = _IN_PARTS.search(scheduler)
    if parts is not None:
        return not (parts["no"] or parts["off"])
    if _AS_A_WHOLE.search(scheduler):
        return False
    return row.day is not None and row.day >= _CHUNKED_FROM


def _scheduler(row: Row) -> str:
    """In small letters, its words apart by one space: "chunked_prefill" is "Chunked-Prefill"."""
    return _APART.sub(" ", row.stated("scheduler"))


def _limits(length: int, prompt: int, slots: int) -> RunnerLimits:
    """As vLLM drives these runners: in a step all that run decode, then prompts are encoded, as
    many as one of the longest has tokens."""
    longest = max(length, prompt + 1)
    return RunnerLimits(
        max_model_len=longest,
        max_tokens=longest + slots,
        max_sequences=slots,
        kv_layout=SlotLayout(longest, slots),
        mixed_phases=True,
        chunked_prefill=False,
    )


def _load(row: Row, slots: int, prompt: int) -> Load:
    """What one replica gets. guidellm draws lengths by the variance that the workload prints."""
    answer = row.integer("output_len", 250)
    drawn = "guidellm" in row.text("workload").lower()
    lengths = Lengths(
        prompt=prompt,
        answer=round(_ENDED_EARLY * answer) if drawn else answer,
        prompt_spread=sqrt(0.1 * prompt) if drawn else 0.0,
        answer_spread=sqrt(0.08 * answer) if drawn else 0.0,
    )
    replicas = row.integer("dp", 1)
    if row.has("rate_req_s"):
        rate = row.number("rate_req_s") / replicas
        if not rate > 0:
            raise UnpredictableRow(f"{row.id}: rate_req_s is {rate:g}, at which nobody comes.")
        return Load(lengths=lengths, rate=rate, arrivals="fixed", seconds=RUN_S)
    if drawn:
        return _full(row, slots, lengths)
    clients = row.integer("concurrency", slots) if not _alone(row, slots) else slots
    return Load(lengths=lengths, clients=_each(clients, replicas), seconds=RUN_S)


def _full(row: Row, slots: int, lengths: Lengths) -> Load:
    """As many requests as guidellm keeps open. The constant rate of its sweep is what this run
    comes to."""
    replicas = row.integer("dp", 1)
    clients = min(max(1, row.integer("concurrency", _USERS) - 1), _CONNECTIONS)
    if row.day is None or row.day < _AS_MANY_AS_SLOTS_BEFORE:
        clients = min(clients, slots * replicas)
    return Load(
        lengths=lengths,
        clients=_each(clients, replicas),
        seconds=RUN_S,
        timeout_s=_SILENCE_S,
        streamed=True,
        pause_s=_PAUSE_S * clients,
        tick_s=_TICK_S,
    )


def _each(clients: int, replicas: int) -> int:
    """Of clients that a proxy shares out in turn, those of an average replica."""
    return min(_CROWD, max(1, round(clients / replicas)))


def _host_steps(row: Row) -> float:
    """From SDK 2.31 on the server prepares a step while the one before runs."""
    return 0.2 if (row.sdk_minor or 0) >= _ASYNCHRONOUS_FROM else 1.0


def _alone(row: Row, slots: int) -> bool:
    """Whether requests come one after the other."""
    if row.stated("mode"):
        return row.stated("mode") == "synchronous"
    if row.has("rate_req_s"):
        return False
    return row.integer("concurrency", 1) == 1 or slots == 1
