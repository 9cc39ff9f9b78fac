"""Rows of token generation with one client: time to first token, time per token, throughput."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import (
    NXD,
    NXDI,
    OPTIMUM_NEURON,
    TRANSFORMERS_NEURONX,
    TRANSFORMERS_NEURONX_2_18,
    LibraryRules,
)
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.places import degree_of, machine_of
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads import opt_tables
from ridgeline_backends.neuron.calibration.workloads.early import narrowed, whole_kv
from ridgeline_backends.neuron.calibration.workloads.precision import Bits, bits_of, is_cast
from ridgeline_backends.neuron.calibration.workloads.relayout import relaid
from ridgeline_backends.neuron.calibration.workloads.sizes import refuse_slips
from ridgeline_backends.neuron.calibration.workloads.widening import widened
from ridgeline_backends.neuron.catalogue import find, plain_name
from ridgeline_backends.neuron.catalogue.families import is_decoder
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.program import ElementType, Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import Part, Work

_LATENCY_BECAME_TPOT = 18
"""From this SDK on tables give time per output token; before, time over all tokens."""

_WHOLE_RUN_FROM = 16
"""From this SDK until then "latency per token" is a run's, prompt and all; before, a step's."""

_LOOP_ON_DEVICE = 14
"""Before this SDK the host chose every token and prepared every step."""

SAMPLING_S = 0.02
"""What choosing tokens on the host adds to a step: tens of milliseconds."""

_CHAIN = re.compile(r"\d+L\b.*\+ ?\d+L\b", re.IGNORECASE)
"""A model of two, one after the other in every step; the host calls each and samples behind it."""

_CONTRIBUTED = 512
"""The one length of a contributed model where its page does not say."""

_FULL_UNTIL = 9
"""The first tables print 16-bit weights, and batches that take as long as all else in fp32."""

_LIGHT_HEADS = ("eagle", "medusa")
"""Drafts that are guessed by a layer on the model's own states."""

_PLAIN = ("", "none", "no", "false", "off", "0", "0.0")
"""How rows say that nothing is guessed."""

_FOUR_BITS = "mxfp4"

_WORDS = re.compile(r"[a-z0-9.+]+")
_TRANSFORMERS_NEURONX = re.compile(r"(.*\b)?(transformers ?neuron|tnx\b)|pytorch")
"""The first tables of its models name PyTorch."""

_RUN_TOKENS, _RUN_SDK = 128, 13
"""The table of SDK 2.13.1 has Llama-2-13b alone, by a run of so many tokens, prompt and answer: its
rate times its latency. Its loop is on the device (release notes of transformers-neuronx 0.6.106:
faster token generation for Llama only)."""


@dataclass(frozen=True)
class Decoder:
    """A compiled model on a machine. `release`: SDK 2.`release` compiles and runs it; None: the one
    that the coefficients stand for. `widens`: experts are kept in 8 bits and made 16 in every call;
    `fused`: by a kernel. `four_bits`: what `config` keeps in 8 bits is kept in 4.
    """

    model: DecoderArchitecture
    machine: Machine
    config: NeuronConfig
    rules: LibraryRules
    widens: bool = False
    fused: bool = True
    release: int | None = None
    four_bits: bool = False

    def step(self, batch: int, bucket: int) -> Work:
        """One decode step."""
        return self._work(Phase.TOKEN_GENERATION, batch, bucket)

    def prefill(self, batch: int, bucket: int) -> Work:
        """One call of context encoding."""
        return self._work(Phase.CONTEXT_ENCODING, batch, bucket)

    def chunk(self, length: int) -> Work:
        """One call for so many tokens of a prompt, which see what the cache holds."""
        return self._work(Phase.CHUNKED_PREFILL, 1, length)

    def turned_back(self, length: int) -> Work:
        """What matrices of experts that lie as decode steps want them are taken to add to such a
        call."""
        config = self.config
        prompt = self._program(Phase.CHUNKED_PREFILL, 1, length)
        step = self._program(Phase.TOKEN_GENERATION, config.decode_batch, config.seq_len)
        return relaid(prompt, step, self.machine)

    def _program(self, phase: Phase, batch: int, bucket: int) -> Program:
        return decoder_program(
            self.model, self.config, phase=phase, bucket=bucket, rules=self.rules, batch=batch
        )

    def _work(self, phase: Phase, batch: int, bucket: int) -> Work:
        program = self._program(phase, batch, bucket)
        parts = [Work.of(program, self.machine)]
        if self.four_bits:
            parts = [self._halved(parts[0], phase, batch, bucket)]
        if self.widens:
            parts.append(widened(program, self.machine, fused=self.fused))
        if self.rules not in NXD and (self.release or 99) < _LATENCY_BECAME_TPOT:
            parts = [Work.of(narrowed(program), self.machine)]
            if phase is Phase.TOKEN_GENERATION:
                more = whole_kv(self.model, self.config, batch=batch, length=bucket)
                parts.append(Work.of(more, self.machine))
        return Work.total(parts).run_by(self.release)

    def _halved(self, work: Work, phase: Phase, batch: int, bucket: int) -> Work:
        """With half of the bytes of all weights whose type the settings decide."""
        config = replace(self.config, quantized=False)
        wide = decoder_program(
            self.model, config, phase=phase, bucket=bucket, rules=self.rules, batch=batch
        )
        rows, others = work.rows.copy(), Work.of(wide, self.machine).rows
        for part in (Part.WEIGHTS, Part.EXPERTS):
            rows[rows[:, part] != others[:, part], part] /= 2
        return Work(rows)


def decode_quantities(row: Row) -> list[Quantity]:
    """Fields of "llm_decode"."""
    decoder = decoder_of(row)
    batch = batch_of(row)
    length = sequence_length(row)
    prompt = row.integer("input_len", default_prompt(row, length))
    runs = _is_run(row)
    answer = row.integer("output_len", max(1, (_RUN_TOKENS if runs else length) - prompt))
    step = decoder.step(batch, length) * (1 / accepted_tokens(row))
    prefill = decoder.prefill(prompts_at_once(row, batch), bucket_of(row, prompt, length))
    domain = _domain(row)
    # A prompt comes from the host, padded, and its first token goes there: work on both sides.
    prefill = Work.total((prefill, Work.host(steps=2.0)))
    if (row.sdk_minor or 99) < _LOOP_ON_DEVICE and not runs:
        step = Work.total((step, Work.host(steps=1.0)))
    if _CHAIN.search(row.model):
        step = Work.total((step, Work.host(steps=2.0, fixed_s=2 * SAMPLING_S)))
    whole = Work.total((prefill, step * (answer - 1)))
    old = (row.sdk_minor or 99) < _LATENCY_BECAME_TPOT
    found = [
        Quantity("ttft_p50_ms", f"{domain}:ttft", prefill, 1e3),
        Quantity("tpot_p50_ms", f"{domain}:tpot", step, 1e3),
        Quantity("lat_p50_ms", f"{domain}:tpot", whole if runs else step, 1e3),
    ]
    tokens = answer + (prompt if old and (runs or _counts_prompt(row)) else 0)
    if (row.sdk_minor or 99) < _WHOLE_RUN_FROM:
        found.append(Quantity("tok_lat_p50_ms", f"{domain}:tpot", step, 1e3))
    else:
        found.append(Quantity("tok_lat_p50_ms", f"{domain}:tpot", whole, 1e3 / tokens))
    if "tok_s_counts_prompt_tokens" in row.listing("flags"):
        tokens = answer + prompt
    rate = batch * tokens
    if row.text("origin") == "nxdi-contrib":
        found.append(Quantity("tok_s", f"{domain}:tok_s", step, batch, rate=True))
    else:
        found.append(Quantity("tok_s", f"{domain}:tok_s", whole, rate, rate=True))
    return found


def decoder_of(row: Row, *, batch: int | None = None) -> Decoder:
    """The model as its library compiles it. Raises `UnpredictableRow`."""
    machine = machine_of(row)
    degree = degree_of(row, machine, _default_degree(row, machine))
    length = sequence_length(row)
    bits = _weight_bits(row)
    # Weights of 4 bits are made 16 while they are loaded, for chips that do not multiply them.
    four_bits = bits == 4 and _FOUR_BITS in machine.chip.tflops_per_core
    quantised = bits == 8 or four_bits or "fp8" in row.model.lower()
    several = batch or batch_of(row)
    try:
        config = NeuronConfig(
            tp_degree=degree,
            batch_size=several,
            ctx_batch_size=several,
            seq_len=length,
            torch_dtype=_dtype(row, bits),
            quantized=quantised,
            on_device_sampling=True,
            output_logits=False,
            fused_qkv=True,
            ep_degree=row.integer("ep", 1),
            sequence_parallel_enabled=row.text("origin") == "neuron-docs-tutorial",
            logical_nc_config=machine.lnc,
        )
        model, rules = architecture_of(row), rules_of(row)
        return Decoder(
            model, machine, config, rules,
            widens="fp8 experts" in row.model.lower(),
            fused="compiler only" not in row.text("note").lower(),
            release=row.sdk_minor,
            four_bits=four_bits,
        )  # fmt: skip
    except BackendError as error:
        raise UnpredictableRow(f"{row.id}: {error.message}") from error


def architecture_of(row: Row) -> DecoderArchitecture:
    """By the row's own config.json, else by name. Raises `NotFound`, and `UnpredictableRow` for a
    config that is no decoder's."""
    if row.config is None:
        return _named(row.model)
    refuse_slips(row.config, row)
    if not is_decoder(row.config):
        kind = row.config.get("model_type") or row.config.get("architectures")
        raise UnpredictableRow(
            f"{row.id}: its config.json is of type {kind}, which is no decoder.",
            hint='Rows of encoders have `cat: encoder`, those of T5 and its like "llm_encdec".',
        )
    return decoder_architecture(row.config)


def rules_of(row: Row) -> LibraryRules:
    """By library and version. What is none that we know is taken for the newest."""
    library = _library(row)
    if _TRANSFORMERS_NEURONX.match(library):
        old = (row.sdk_minor or 18) <= 18
        return TRANSFORMERS_NEURONX_2_18 if old else TRANSFORMERS_NEURONX
    return OPTIMUM_NEURON if "optimum" in library else NXDI


def is_library_known(row: Row) -> bool:
    """Whether the row's library is one of those whose rules we have, or left out."""
    library = _library(row)
    named = any(one in library for one in ("optimum", "nxd", "neuron", "vllm"))
    return not library or named or _TRANSFORMERS_NEURONX.match(library) is not None


def _library(row: Row) -> str:
    """In small letters, its words apart by one space: "transformers-neuronx" is one of two."""
    return " ".join(_WORDS.findall(row.text("framework").lower()))


def batch_of(row: Row) -> int:
    """Sequences at once."""
    batch = row.integer("batch", 1)
    return opt_tables.batch_meant(row, batch) if opt_tables.prints(row) else batch


def _weight_bits(row: Row) -> Bits | None:
    """Of what the weights are kept in."""
    own, model = bits_of(row, "weight_dtype"), bits_of(row, "model_dtype")
    return model if own is None else own


def _dtype(row: Row, bits: Bits | None) -> ElementType:
    """What is computed in. Libraries of decoders have the compiler cast where they say so alone."""
    early = rules_of(row) not in NXD and (row.sdk_minor or 99) <= _FULL_UNTIL
    whole = bits == 32 and not is_cast(row)
    return ElementType.FP32 if early or whole else ElementType.BF16


def sequence_length(row: Row) -> int:
    """Compiled positions of a sequence."""
    if opt_tables.prints(row) and row.integer("batch", 1) > 1:
        return opt_tables.LENGTH
    if row.has("seq_len"):
        length, prompt = row.integer("seq_len"), row.integer("input_len", 1)
        if prompt > length:
            raise UnpredictableRow(
                f"{row.id}: input_len {prompt} is above seq_len {length}, the positions that are "
                "compiled for a prompt and its answer."
            )
        return length
    if row.has("input_len"):
        return row.integer("input_len") + row.integer("output_len", 128)
    return 2048


def _is_run(row: Row) -> bool:
    """Whether its latency is a whole run's."""
    return row.sdk_minor == _RUN_SDK and plain_name(row.model).startswith("llama")


def default_prompt(row: Row, length: int) -> int:
    """Where a row does not say how long its prompts were."""
    if opt_tables.prints(row):
        return opt_tables.PROMPT
    if _is_run(row):
        return _RUN_TOKENS // 2
    return min(128, max(1, length // 2)) if row.has("output_len") else max(1, length // 2)


def accepted_tokens(row: Row) -> float:
    """Tokens of one step where a draft is checked: of five guessed by a model of its own three and
    a half, of a light head's less than one, as published runs have it."""
    said = row.stated("spec")
    if said in _PLAIN:
        return 1.0
    return 1.7 if any(one in said for one in _LIGHT_HEADS) else 3.5


def bucket_of(row: Row, prompt: int, length: int) -> int:
    """The compiled length of a prompt: the next power of two, at most the whole. Models that NxD
    Inference does not bring itself are compiled for one length."""
    if row.text("origin") == "nxdi-contrib":
        return length if row.has("seq_len") else max(_CONTRIBUTED, prompt)
    bucket = 128
    while bucket < prompt:
        bucket *= 2
    return min(bucket, -(-max(length, prompt) // 128) * 128)


def prompts_at_once(row: Row, batch: int) -> int:
    """transformers-neuronx encodes all prompts of a batch in one call; so does a row of one client
    whose requests are a batch."""
    return row.integer("ctx_batch", batch)


def _default_degree(row: Row, machine: Machine) -> int:
    known = machine.instance.tensor_parallel
    if 8 in known and "13b" in row.model.lower():
        return 8
    room = machine.cores // row.integer("dp", 1)
    return max((one for one in known if one <= room), default=known[0])


def _counts_prompt(row: Row) -> bool:
    """Tables of SDK 2.16 and 2.17 divide a Llama-2-13b run by all its tokens."""
    return (row.sdk_minor or 99) >= 16 and "13b" in row.model.lower()


def _domain(row: Row) -> str:
    if rules_of(row) in NXD:
        return "nxdi"
    return "decode" if (row.sdk_minor or 18) >= _LATENCY_BECAME_TPOT else "decode_before_2.18"


@lru_cache(maxsize=1024)
def _named(model: str) -> DecoderArchitecture:
    return decoder_architecture(find(model, "decoders").config)
