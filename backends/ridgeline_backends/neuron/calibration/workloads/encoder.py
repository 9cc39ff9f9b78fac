"""Rows of encoders: calls of a fixed batch, copies of the model on several cores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.encoder import EncoderShape, build_encoder
from ridgeline_backends.neuron.builders.rules import NXDI, OPTIMUM_NEURON
from ridgeline_backends.neuron.builders.signals import (
    build_signal_decoder,
    build_signal_encoder,
    build_speech_encoder,
)
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.places import degree_of, machine_of
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads.precision import products_of
from ridgeline_backends.neuron.calibration.workloads.sizes import sizes_of
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.program import BufferKind, Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import Work

_RESULT_BYTES = 4

_FRESH_BYTES = 32 << 20
"""Arrays above this are of pages that the process never touched (glibc's largest threshold)."""

_PAGE_S_PER_BYTE = 0.5e-6 / 4096
"""A page fault and the clearing of its 4 KiB."""

_WRITES_FASTER = 4
"""Writes over PCIe are posted; reads wait for their answer."""

_LEAST_TOKENS = 2048
"""Of a step, as vLLM sets it where a sequence is shorter."""

_MEDIAN_ROUNDS = 3
"""Whoever comes last is served first: with more clients than a call takes, half of the requests
wait for two calls at most, and the mean lies above the 90th percentile (tables of a server under
32 clients)."""

_MASKED = re.compile(r"masked.?lm|fill.?mask", re.IGNORECASE)
_TUNED = re.compile(r"classification|mrpc|sst-2", re.IGNORECASE)
_TABLES_TASK = "raw output (automodel)"
"""What the published tables say of most encoders."""

_STEPS = re.compile(r"(\d+) steps")

_SAMPLES = 7 * 16000
"""Of the one published speech model: windows of 7 seconds."""

_EEG_TOKENS, _EEG_WIDTH, _EEG_TIME, _EEG_STEPS = 50, 32, 64, 50
"""ZUNA as its page traces it: so many windows of 32 samples, and steps if not said otherwise."""


def encoder_quantities(row: Row) -> list[Quantity]:
    """Fields of "encoder"."""
    machine = machine_of(row)
    batch = row.integer("batch", 1)
    config = row.config if row.config is not None else find(row.model, "encoders").config
    if _type(config) == "zuna":
        return calls(row, machine, _denoised(config, row, machine), batch, domain="encoder_other")
    cores = degree_of(row, machine)
    copies = _copies(row, machine)
    machine = replace(machine, active=min(copies, _in_flight(row, copies)))
    program = encoder_program(config, row, batch, cores=cores)
    work = Work.of(program, machine).compiled_by(compiler_of(row, machine))
    work = Work.total((work, results(program)))
    if "vllm" in row.text("framework").lower():
        return _served(row, work, batch)
    return calls(row, machine, work, batch, domain=_domain(row, machine))


def _denoised(config: Mapping[str, object], row: Row, machine: Machine) -> Work:
    """A signal is encoded once, then made in steps."""
    shape = encoder_shape(config, row)
    encoder = build_signal_encoder(shape, tokens=_EEG_TOKENS, width=_EEG_WIDTH)
    step = build_signal_decoder(shape, tokens=_EEG_TOKENS, width=_EEG_WIDTH, time=_EEG_TIME)
    works = [Work.total((Work.of(one, machine), results(one))) for one in (encoder, step)]
    steps = _STEPS.search(row.text("note"))
    return Work.total((works[0], works[1] * (int(steps.group(1)) if steps else _EEG_STEPS)))


def _served(row: Row, work: Work, batch: int) -> list[Quantity]:
    """The server fills a batch up with padding. What it takes from the queue for a call are as many
    prompts as its budget of tokens holds, which is a sequence's length or vLLM's least."""
    clients = row.integer("concurrency", 1)
    budget = max(_LEAST_TOKENS, row.integer("seq_len", _LEAST_TOKENS))
    # Prompts of about that length: on average half of one finds no room.
    room = budget / row.integer("input_len", 128) - 0.5
    together = max(1.0, min(batch, clients, room))
    rounds = ceil(clients / together)
    return [
        Quantity("lat_p50_ms", "encoder_other:latency", work, 1e3 * min(rounds, _MEDIAN_ROUNDS)),
        Quantity("inf_s", "encoder_other:rate", work, min(together, clients / rounds), rate=True),
    ]


def encoder_program(config: object, row: Row, batch: int, *, cores: int = 1) -> Program:
    """By config.json. Raises `UnpredictableRow`."""
    # One length is compiled, whatever comes.
    length = row.integer("seq_len", row.integer("input_len", 128))
    if isinstance(config, Mapping):
        sizes = sizes_of(config, row)
        if sizes.mixture:
            return _mixture(config, row, batch, length=length, cores=cores)
    shape = encoder_shape(config, row, cores=cores)
    if row.model.lower().startswith("laughter") or _type(config) == "wav2vec2":
        return build_speech_encoder(shape, batch=batch, samples=_SAMPLES)
    return build_encoder(shape, batch=batch, length=length, cores=cores)


def _mixture(
    config: Mapping[str, object], row: Row, batch: int, *, length: int, cores: int
) -> Program:
    """A decoder with experts encodes a text as its library does a prompt."""
    settings = {name: value for name, value in config.items() if name != "architectures"}
    try:
        return decoder_program(
            decoder_architecture(settings),
            NeuronConfig(
                tp_degree=cores, batch_size=batch, ctx_batch_size=batch, seq_len=length,
                fused_qkv=True,
            ),
            phase=Phase.CONTEXT_ENCODING,
            bucket=length,
            rules=OPTIMUM_NEURON if "optimum" in row.text("framework") else NXDI,
        )  # fmt: skip
    except BackendError as error:
        raise UnpredictableRow(f"{row.id}: {error.message}") from error


def encoder_shape(config: object, row: Row, *, cores: int = 1) -> EncoderShape:
    """Over so many cores. Raises `UnpredictableRow` for a config that lacks a size."""
    if not isinstance(config, Mapping):
        raise UnpredictableRow(f"{row.id}: config must be a mapping.")
    sizes = sizes_of(config, row)
    logits = _reads_logits(row, config)
    if logits and not sizes.vocab:
        raise UnpredictableRow(f"{row.id}: its config.json has no vocab_size above 0.")
    heads, keys = sizes.heads_over(cores)
    return EncoderShape(
        hidden=sizes.hidden,
        layers=sizes.layers,
        heads=heads,
        intermediate=sizes.intermediate,
        vocab=sizes.vocab,
        kv_heads=keys,
        head_dim=sizes.head_dim,
        causal=sizes.decoder,
        gated=sizes.gated,
        logits=logits,
        labels=_classifies(row),
        kernel="flash" if sizes.decoder and not _traced(row) else "plain",
        dtype=products_of(row),
    )


def _traced(row: Row) -> bool:
    """Whether the model is traced as transformers wrote it; libraries for decoders have kernels."""
    return "torch" in row.text("framework").lower()


def calls(
    row: Row, machine: Machine, work: Work, batch: int, *, domain: str, streams: int | None = None
) -> list[Quantity]:
    """Latency and throughput of calls: with more calls in flight than copies of the model they
    queue, so that each takes as much longer."""
    copies = streams or _copies(row, machine)
    flying = _in_flight(row, copies)
    busy = min(copies, flying)
    return [
        Quantity("lat_p50_ms", f"{domain}:latency", work, 1e3 * max(1.0, flying / copies)),
        Quantity("inf_s", f"{domain}:rate", work, busy * batch, rate=True),
    ]


def results(program: Program) -> Work:
    """What the host reads back and has written, in single precision."""
    outputs = [
        one.elements * _RESULT_BYTES * section.repeats
        for one, section in program.buffers(BufferKind.OUTPUT)
    ]
    written = sum(one.elements for one, _ in program.buffers(BufferKind.INPUT)) * _RESULT_BYTES
    fresh = sum(size for size in outputs if size > _FRESH_BYTES)
    moved = sum(outputs) + written / _WRITES_FASTER
    return Work.host(gigabytes=moved / 1e9, fixed_s=fresh * _PAGE_S_PER_BYTE)


def compiler_of(row: Row, machine: Machine) -> int | None:
    """Inferentia1 has a compiler of its own, which was finished before the others began."""
    return None if machine.chip.neuroncore == "v1" else row.sdk_minor


def _in_flight(row: Row, copies: int) -> int:
    """Calls at once: threads of the benchmark. Where a row does not say: one per core of
    Inferentia2 and Trainium1, in batch runs on images two. Scripts of Inferentia1 ask for one call
    at a time, or for one per core in batch runs: earlier rows of the tables that leave it out print
    four threads for four cores. (`inflight_batches` is no input: it was computed from the answers.)
    """
    if row.has("concurrency"):
        return row.integer("concurrency")
    if row.has("n_models"):
        return copies * row.integer("workers_per_model", 1)
    if row.has("threads"):
        return row.integer("threads")
    batched = row.stated("app").startswith("batch")
    if _is_inferentia1(row):
        return copies if batched else 1
    if row.category == "vision":
        return 2 * copies if batched else 1
    return copies if row.text("run_mode") or "DP" in row.text("note") else 1


def _copies(row: Row, machine: Machine) -> int:
    """Copies of the model, each on a core of its own. The scripts of Inferentia2 and Trainium1
    use the two cores of one device where a row does not say how many."""
    if row.has("tp"):
        return row.integer("dp", 1)
    if row.has("n_models"):
        return row.integer("n_models")
    if row.has("cores"):
        return _cores_of(row, machine)
    if machine.chip.neuroncore == "v1":
        return 4
    if not row.text("run_mode"):
        return 2 if row.integer("batch", 1) > 1 or "2 cores" in row.text("note") else 1
    return machine.chip.logical_cores(machine.lnc)


def _cores_of(row: Row, machine: Machine) -> int:
    cores, there = row.integer("cores"), machine.instance.cores(machine.lnc)
    if cores > there:
        raise UnpredictableRow(
            f"{row.id}: cores {cores} are more than the {there} cores of {machine.instance.name} "
            f"at LNC {machine.lnc}."
        )
    return cores


def _is_inferentia1(row: Row) -> bool:
    return row.stated("instance").removeprefix("ml.").startswith("inf1")


def _domain(row: Row, machine: Machine) -> str:
    if machine.chip.neuroncore == "v1":
        return "encoder_inf1"
    return "encoder" if row.text("run_mode") else "encoder_other"


def _classifies(row: Row) -> int:
    """Labels of a sequence that are read back instead of hidden states. Inferentia1's tables are of
    the tutorials' fine-tuned classifiers."""
    known = _TUNED.search(f"{row.stated('task')} {row.model}")
    return 2 if known or _is_inferentia1(row) else 0


def _reads_logits(row: Row, config: Mapping[str, object]) -> bool:
    """The head over the vocabulary is read back by runs of a masked language model. The tables name
    XLM-RoBERTa's that from SDK 2.27 on; its times say it was one before, so without another task
    its architecture decides, or its name. Models made of it by other people have no such head."""
    task = row.stated("task")
    if _MASKED.search(task):
        return True
    if _type(config) != "xlm-roberta" or task not in ("", _TABLES_TASK):
        return False
    names = config.get("architectures")
    if isinstance(names, list) and names:
        return any(str(name).endswith("ForMaskedLM") for name in names)
    return "xlm-roberta" in row.model.lower()


def _type(config: object) -> str:
    return str(config.get("model_type", "")) if isinstance(config, Mapping) else ""
