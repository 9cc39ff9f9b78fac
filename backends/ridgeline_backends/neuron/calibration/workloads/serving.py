"""Rows of a server: one client at a time, or load that our own scheduler is simulated under."""

from __future__ import annotations

from math import ceil, sqrt

from ridgeline_backends.base import RunnerLimits, SlotLayout
from ridgeline_backends.neuron.calibration.quantity import RUN_S, Quantity, ServingRun, Simulated
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.decode import (
    accepted_tokens,
    bucket_of,
    decoder_of,
    sequence_length,
)
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.timing.work import Work

_ASYNCHRONOUS_FROM = 31

_PER_SAMPLED = 0.25
"""Of the host's work for a step: what one more sequence adds where the host samples."""

_VOCABULARY_BYTES = 4
"""A logit on its way to the host."""

_CONNECTIONS = 100
"""httpx opens no more to one server, whatever number of users was asked for."""

_AS_MANY_AS_SLOTS_BEFORE = "2026"
"""Until then the script's default of 128 users was printed whatever ran: requests that wait for a
slot are in none of these rows' latencies."""


def serving_quantities(row: Row) -> list[Quantity | Simulated]:
    """Fields of "serving". With one client at a time a request has the machine to itself."""
    slots = row.integer("batch", row.integer("concurrency", 1))
    alone = _alone(row, slots)
    run = _run(row, slots)
    answer = row.integer("output_len", 250)
    found: list[Quantity | Simulated] = []
    if alone:
        whole = Work.total((run.prefill, run.step * (answer - 1)))
        for statistic in ("mean", "p50"):
            found.append(Quantity(f"ttft_{statistic}_ms", "serving:single:ttft", run.prefill, 1e3))
            found.append(Quantity(f"tpot_{statistic}_ms", "serving:single:tpot", run.step, 1e3))
        found.append(Quantity("tok_s", "serving:single:tok_s", whole, answer, rate=True))
    else:
        found += [
            Simulated("ttft_mean_ms", "serving:load:ttft", run, lambda o: o.ttft_mean, 1e3),
            Simulated("ttft_p50_ms", "serving:load:ttft", run, lambda o: o.ttft(0.5), 1e3),
            Simulated("tpot_mean_ms", "serving:load:tpot", run, lambda o: o.tpot_mean, 1e3),
            Simulated("tpot_p50_ms", "serving:load:tpot", run, lambda o: o.tpot_mean, 1e3),
        ]
    rate = "max_tok_s" if alone else "tok_s"
    replicas = row.integer("dp", 1)
    found.append(
        Simulated(rate, "serving:load:tok_s", run, lambda o: o.tokens_s, replicas, rate=True)
    )
    return found


def _run(row: Row, slots: int) -> ServingRun:
    """optimum-neuron compiles one length for all prompts, the longest."""
    decoder = decoder_of(row, batch=slots)
    length = sequence_length(row)
    prompt = row.integer("input_len", 1024)
    bucket = length if "optimum" in row.text("framework") else bucket_of(row, prompt, length)
    sampled = "CPU sampling" in row.text("scheduler")
    logits = slots * decoder.model.vocab_size * _VOCABULARY_BYTES if sampled else 0
    host = Work.host(steps=_host_steps(row, sampled), gigabytes=logits / 1e9)
    step = Work.total((decoder.step(slots, length), host)) * (1 / accepted_tokens(row))
    return ServingRun(
        prefill=Work.total((decoder.prefill(1, bucket), host)),
        step=step,
        sequence=Work.host(steps=_PER_SAMPLED if sampled else 0.0),
        limits=_limits(length, prompt, slots),
        load=_load(row, slots, prompt),
    )


def _limits(length: int, prompt: int, slots: int) -> RunnerLimits:
    longest = max(length, prompt + 1)
    return RunnerLimits(
        max_model_len=longest,
        max_tokens=max(longest, slots),
        max_sequences=slots,
        kv_layout=SlotLayout(longest, slots),
        mixed_phases=False,
        chunked_prefill=False,
        sequence_buckets=(longest,),
    )


def _load(row: Row, slots: int, prompt: int) -> Load:
    """What one replica gets. guidellm draws lengths by the variance that the workload prints."""
    answer = row.integer("output_len", 250)
    drawn = "guidellm" in row.text("workload")
    lengths = Lengths(
        prompt=prompt,
        answer=answer,
        prompt_spread=sqrt(0.1 * prompt) if drawn else 0.0,
        answer_spread=sqrt(0.08 * answer) if drawn else 0.0,
    )
    replicas = row.integer("dp", 1)
    if row.has("rate_req_s"):
        rate = row.number("rate_req_s") / replicas
        return Load(lengths=lengths, rate=rate, arrivals="fixed", seconds=RUN_S)
    clients = row.integer("concurrency", slots) if not _alone(row, slots) else slots
    if drawn:
        clients = min(clients, _CONNECTIONS)
        if row.text("date") < _AS_MANY_AS_SLOTS_BEFORE:
            clients = min(clients, slots * replicas)
    return Load(lengths=lengths, clients=ceil(clients / replicas), seconds=RUN_S)


def _host_steps(row: Row, sampled: bool) -> float:
    """From SDK 2.31 on the server prepares a step while the one before runs. Sampling on the host
    is as much work again."""
    if (row.sdk_minor or 0) >= _ASYNCHRONOUS_FROM:
        return 0.2
    return 2.0 if sampled else 1.0


def _alone(row: Row, slots: int) -> bool:
    """Whether requests come one after the other."""
    if row.text("mode"):
        return row.text("mode") == "synchronous"
    return row.integer("concurrency", 1) == 1 or slots == 1
