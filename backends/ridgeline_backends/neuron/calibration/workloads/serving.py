"""Rows of a server under load: continuous batching over a compiled batch, prompts first."""

from __future__ import annotations

from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.decode import (
    accepted_tokens,
    bucket_of,
    decoder_of,
    sequence_length,
)
from ridgeline_backends.neuron.timing.work import Work

_ASYNCHRONOUS_FROM = 31

_PER_SEQUENCE = 0.25

_VOCABULARY_BYTES = 4
"""A logit on its way to the host."""


def serving_quantities(row: Row) -> list[Quantity]:
    """Fields of "serving". With one client at a time a request has the machine to itself. Under
    load all slots are taken: while one sequence decodes, each other slot is refilled once, and the
    prompt that refills it stalls the rest; a new request waits behind a quarter of the slots'
    prompts, since answers of like length end in clumps. optimum-neuron compiles one length for all
    prompts, the longest.
    """
    slots = row.integer("batch", row.integer("concurrency", 1))
    decoder = decoder_of(row, batch=slots)
    length = sequence_length(row)
    prompt = row.integer("input_len", 1024)
    answer = row.integer("output_len", 250)
    logits = _sampled_bytes(row, slots, decoder.model.vocab_size)
    host = Work.host(steps=_host_steps(row, slots), gigabytes=logits / 1e9)
    bucket = length if "optimum" in row.text("framework") else bucket_of(row, prompt, length)
    step = Work.total((decoder.step(slots, length), host))
    step = step * (1 / accepted_tokens(row))
    prefill = Work.total((decoder.prefill(1, bucket), host))
    if _saturated(row):
        token = Work.total((step, prefill * (slots / answer)))
        busy = row.text("mode") == "throughput"
        first = prefill * (1 + slots / 4 if busy else 1.0)
        requests, domain = float(slots), "serving:load"
    else:
        token, first, requests, domain = step, prefill, 1.0, "serving:single"
    whole = Work.total((first if requests == 1 else prefill, token * (answer - 1)))
    replicas = row.integer("dp", 1) if requests > 1 else 1
    rate = requests * replicas * answer
    return [
        Quantity("ttft_mean_ms", f"{domain}:ttft", first, 1e3),
        Quantity("ttft_p50_ms", f"{domain}:ttft", first, 1e3),
        Quantity("tpot_mean_ms", f"{domain}:tpot", token, 1e3),
        Quantity("tpot_p50_ms", f"{domain}:tpot", token, 1e3),
        Quantity("tok_s", f"{domain}:tok_s", whole, rate, rate=True),
        Quantity("max_tok_s", f"{domain}:tok_s", whole, rate, rate=True),
    ]


def _host_steps(row: Row, slots: int) -> float:
    """From SDK 2.31 on the server prepares a step while the one before runs. Sampling on the host
    is as much work again, and a quarter of it for each further sequence."""
    if (row.sdk_minor or 0) >= _ASYNCHRONOUS_FROM:
        return 0.2
    if "CPU sampling" not in row.text("scheduler"):
        return 1.0
    return 2.0 + (_PER_SEQUENCE * (slots - 1) if _saturated(row) else 0.0)


def _saturated(row: Row) -> bool:
    clients = row.integer("concurrency", 2 if row.text("mode") == "asynchronous" else 1)
    return clients > 1 and row.text("mode") != "synchronous"


def _sampled_bytes(row: Row, slots: int, vocabulary: int) -> int:
    """Logits of all slots go to the host where it samples."""
    return slots * vocabulary * _VOCABULARY_BYTES if "CPU sampling" in row.text("scheduler") else 0
