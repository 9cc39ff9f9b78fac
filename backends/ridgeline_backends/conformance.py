"""What every backend must keep: a sequence's output depends on the sequence alone.

Each check generates the same sequences in another situation (in a batch, in chunks, preempted,
behind a shared prefix, ...) and compares tokens and log-probabilities bit by bit with those of the
sequence alone. Run it against any backend, yours too:

    from ridgeline_backends.conformance import CHECKS, Subject

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(Subject(MyBackend(), model_dir, "bf16"))

The model needs a context of at least `CONTEXT` tokens; a tiny one with random weights will do.
A failed check raises `AssertionError`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy
from safetensors.numpy import save_file

from ridgeline_backends.base import Backend, LoadSpec, LoraRunner, ModelRunner, PagedLayout
from ridgeline_backends.engine import EngineOutput, LLMEngine, SamplingParams
from ridgeline_backends.engine.drafting import Drafter, Drafts
from ridgeline_backends.engine.sequence import Sequence as EngineSequence
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.models.config import decoder_config
from ridgeline_backends.models.reader import read_json

CONTEXT = 192
_BLOCK = 16
NEW_TOKENS = 24
ADAPTER_RANK = 4


@dataclass(frozen=True, slots=True)
class Request:
    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    adapter: str | None = None


@dataclass(slots=True)
class Answer:
    """What one sequence gave: token ids, and log-probabilities with alternatives, as exact bits."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[str] = field(default_factory=list)
    cached_tokens: int = 0

    def take(self, output: EngineOutput) -> None:
        assert output.error is None, output.error
        self.tokens.extend(output.token_ids)
        for entry in output.logprobs or ():
            values = [entry.logprob, *(value for _, value in entry.top)]
            self.logprobs.append(" ".join(value.hex() for value in values))
        self.cached_tokens = output.cached_tokens


class Subject:
    """A backend, a model and a precision under test.

    `new_tokens`: how long each answer is; fewer for a large model, but eight at least, for a
    preemption needs some. `block_size`: what the backend plans with; the context is as many blocks
    for every size, so the model needs one of `CONTEXT` times it, over 16.
    """

    def __init__(
        self,
        backend: Backend,
        model_dir: Path,
        dtype: Literal["bf16", "fp32"],
        seed: int = 0,
        *,
        new_tokens: int = NEW_TOKENS,
        block_size: int = _BLOCK,
    ) -> None:
        self._backend = backend
        self._model_dir = model_dir
        self._dtype = dtype
        self._block_size = block_size
        self._config = read_json(model_dir / "config.json")
        self._requests = _requests(self._vocabulary(), seed, new_tokens, block_size)
        self._alone: dict[str, Answer] | None = None
        self._loaded: tuple[LoadSpec, ModelRunner] | None = None

    @property
    def requests(self) -> list[Request]:
        return self._requests

    @property
    def config(self) -> Mapping[str, object]:
        return self._config

    def engine(
        self,
        *,
        sequences: int = 8,
        step_tokens: int = 512,
        one_sequence_of_kv: bool = False,
        adapters: int = 0,
        drafter: Drafter | None = None,
    ) -> LLMEngine:
        """A fresh engine, with KV memory for `sequences` sequences or for a single one, that
        follows every guess of `drafter`.

        Its runner may have served an earlier engine, which must make no difference either.
        """

        def plan_for(sequences: int, kv_cache_bytes: int | None) -> LoadSpec:
            return LoadSpec(
                dtype=self._dtype,
                max_model_len=CONTEXT // _BLOCK * self._block_size,
                max_num_seqs=sequences,
                block_size=self._block_size,
                max_tokens_per_step=step_tokens,
                kv_cache_bytes=kv_cache_bytes,
                max_adapters=adapters,
                max_adapter_rank=ADAPTER_RANK,
            )

        spec = plan_for(sequences, None)
        if one_sequence_of_kv:
            smallest = self._backend.plan(self._config, plan_for(1, None))
            spec = plan_for(sequences, smallest.memory.kv)
        speculation = None if drafter is None else Speculation(drafter, always=True)
        return LLMEngine(self._runner(spec), speculation=speculation)

    @property
    def takes_adapters(self) -> bool:
        """Whether the backend's runner of this model has the LoRA capability."""
        spec = LoadSpec(
            dtype=self._dtype, max_model_len=CONTEXT, block_size=self._block_size, max_adapters=1
        )
        return isinstance(self._runner(spec), LoraRunner)

    def _runner(self, spec: LoadSpec) -> ModelRunner:
        if self._loaded is None or self._loaded[0] != spec:
            # The former one goes first: a model may fill more than half of the memory.
            if self._loaded is not None:
                self._loaded[1].close()
                self._loaded = None
            plan = self._backend.plan(self._config, spec)
            runner = self._backend.load(self._backend.compile(self._model_dir, plan))
            assert isinstance(runner, ModelRunner), "conformance is about models that generate"
            self._loaded = spec, runner
        return self._loaded[1]

    def alone(self) -> dict[str, Answer]:
        """Every request generated alone, one after the other, without a shared prefix."""
        if self._alone is None:
            self._alone = {}
            for request in self._requests:
                self._alone |= generate(self.engine(sequences=1), [request])
        return self._alone

    def agrees(self, answers: dict[str, Answer]) -> None:
        """Raise `AssertionError` unless these answers are those of the sequences alone."""
        _same(answers, self.alone())

    def _vocabulary(self) -> int:
        size = self._config.get("vocab_size")
        assert isinstance(size, int)
        return size


def generate(engine: LLMEngine, requests: list[Request]) -> dict[str, Answer]:
    """Run the requests together to their ends; no block may be left behind."""
    answers = {request.id: Answer() for request in requests}
    for request in requests:
        sink = answers[request.id].take
        engine.submit(request.id, request.prompt, request.params, sink, adapter=request.adapter)
    while engine.step():
        engine.check_integrity()
    engine.check_integrity()
    stats = engine.stats()
    assert stats.free_blocks == stats.total_blocks, "a block leaked"
    return answers


def check_batch(subject: Subject) -> None:
    """All together."""
    subject.agrees(generate(subject.engine(), subject.requests))


def check_smaller_batches(subject: Subject) -> None:
    """In batches of other sizes, among them odd ones."""
    for size in (2, 3, 5):
        engine = subject.engine(sequences=size)
        subject.agrees(generate(engine, list(reversed(subject.requests))))


def check_chunked(subject: Subject) -> None:
    """Prompts cut into chunks of other sizes, decodes in between."""
    for step_tokens in (8, 13, 37):
        subject.agrees(generate(subject.engine(step_tokens=step_tokens), subject.requests))


def check_preempted(subject: Subject) -> None:
    """With so little KV memory that sequences lose theirs and are computed again."""
    engine = subject.engine(one_sequence_of_kv=True)
    subject.agrees(generate(engine, subject.requests))
    if isinstance(engine.limits.kv_layout, PagedLayout):
        assert engine.stats().preemptions > 0, "nothing was preempted"


def check_prefix_hit(subject: Subject) -> None:
    """Behind prefixes that an earlier run left in memory."""
    engine = subject.engine()
    subject.agrees(generate(engine, subject.requests))
    again = generate(engine, subject.requests)
    subject.agrees(again)
    if isinstance(engine.limits.kv_layout, PagedLayout) and engine.limits.chunked_prefill:
        assert any(answer.cached_tokens for answer in again.values()), "no prefix was shared"


def check_neighbours_leave(subject: Subject) -> None:
    """While neighbours are cancelled half-way."""
    engine = subject.engine()
    answers = {request.id: Answer() for request in subject.requests}
    for request in subject.requests:
        engine.submit(request.id, request.prompt, request.params, answers[request.id].take)
    leavers = [request.id for request in subject.requests[::2]]
    for step, name in enumerate(leavers, start=2):
        for _ in range(step):
            engine.step()
        engine.cancel(name)
    while engine.step():
        engine.check_integrity()
    subject.agrees({name: a for name, a in answers.items() if name not in leavers})


def check_guesses(subject: Subject) -> None:
    """With guesses that are right for a while and then wrong."""
    drafter = _Oracle({r.id: subject.alone()[r.id].tokens for r in subject.requests})
    engine = subject.engine(drafter=drafter)
    if not engine.limits.draft_tokens:
        return
    subject.agrees(generate(engine, subject.requests))
    stats = engine.stats()
    assert 0 < stats.accepted_tokens < stats.draft_tokens, "guesses were not both right and wrong"
    # Behind what those left in memory: it must be what was accepted.
    subject.agrees(generate(engine, subject.requests))
    scarce = subject.engine(drafter=drafter, one_sequence_of_kv=True)
    subject.agrees(generate(scarce, subject.requests))


def check_adapters(subject: Subject) -> None:
    """Sequences of two LoRA adapters and of none in one batch, and behind each other's prefixes."""
    if not subject.takes_adapters:
        return
    names = (None, "first", "second")
    requests = [
        replace(request, id=f"{request.id} {name}", adapter=name)
        for request in subject.requests[3:6]
        for name in names
    ]
    with TemporaryDirectory() as folder:
        for seed, name in enumerate(names[1:]):
            _write_adapter(Path(folder) / str(name), subject.config, seed)

        def answers(engine: LLMEngine, requests: list[Request]) -> dict[str, Answer]:
            for name in ("first", "second"):
                engine.load_adapter(name, Path(folder) / name)
            found, again = generate(engine, requests), generate(engine, requests)
            _same(again, found)
            for name in engine.stats().adapters:
                engine.unload_adapter(name).result(0)
            return found

        alone: dict[str, Answer] = {}
        for request in requests:
            alone |= answers(subject.engine(sequences=1, adapters=2), [request])
        _same(answers(subject.engine(sequences=9, adapters=2), requests), alone)
    for place in range(0, len(requests), len(names)):
        bits = {tuple(alone[r.id].logprobs) for r in requests[place : place + len(names)]}
        assert len(bits) == len(names), "an adapter made no difference"


def _same(answers: dict[str, Answer], expected: dict[str, Answer]) -> None:
    for name, answer in answers.items():
        assert answer.tokens == expected[name].tokens, f"{name}: other tokens"
        assert answer.logprobs == expected[name].logprobs, f"{name}: other bits"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_batch,
    check_smaller_batches,
    check_chunked,
    check_preempted,
    check_prefix_hit,
    check_neighbours_leave,
    check_guesses,
    check_adapters,
)


class _Oracle(Drafter):
    """Knows the answers, and is wrong at every fifth place."""

    free = True

    def __init__(self, answers: Mapping[str, Sequence[int]]) -> None:
        self._answers = answers

    def propose(self, wanted: Sequence[tuple[EngineSequence, int]]) -> Drafts:
        found = {}
        for seq, count in wanted:
            answer = self._answers[seq.id]
            places = range(seq.generated, min(len(answer), seq.generated + count))
            found[seq.id] = tuple(
                answer[place] if place % 5 else answer[place] ^ 1 for place in places
            )
        return Drafts(found)

    def forget(self, seq: EngineSequence) -> None:
        """Nothing is kept."""


def _write_adapter(folder: Path, config: Mapping[str, object], seed: int) -> None:
    """A LoRA adapter of random numbers for every matrix of the model, in PEFT's format."""
    model = decoder_config(config)
    draw = numpy.random.default_rng(seed)
    tensors = {}
    for layer in range(model.layers):
        for module, (_, rows, columns) in model.projections.items():
            parent = "mlp" if module in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{parent}.{module}"
            for side, shape in (("A", (ADAPTER_RANK, columns)), ("B", (rows, ADAPTER_RANK))):
                values = draw.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.1)
                tensors[f"{name}.lora_{side}.weight"] = values
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": ADAPTER_RANK, "lora_alpha": ADAPTER_RANK, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "adapter_model.safetensors")


def _requests(vocabulary: int, seed: int, new_tokens: int, block_size: int) -> list[Request]:
    """Prompts of odd lengths, some with a common beginning; greedy and seeded sampling."""
    draw = random.Random(seed)  # noqa: S311  test data

    def stretched(length: int) -> int:
        """As many blocks, and as near the end of the last one, as with blocks of 16 tokens."""
        return length + -(-length // _BLOCK) * (block_size - _BLOCK)

    common = [draw.randrange(vocabulary) for _ in range(stretched(40))]
    kinds = (
        SamplingParams(max_tokens=new_tokens, temperature=0, logprobs=5, ignore_eos=True),
        SamplingParams(max_tokens=new_tokens, seed=7, logprobs=5, ignore_eos=True),
        SamplingParams(
            max_tokens=new_tokens, seed=8, top_k=20, top_p=0.9, logprobs=5, ignore_eos=True
        ),
    )
    # The second crosses into a new block after a few tokens, when the first five fill the memory
    # of one sequence: that preempts.
    lengths = tuple(map(stretched, (1, 12, 16, 33, 64, 67, 100, 143)))
    return [
        Request(
            f"sequence-{index}",
            (
                *(common if index % 2 and length > len(common) else ()),
                *(draw.randrange(vocabulary) for _ in range(length)),
            )[:length],
            kinds[index % len(kinds)],
        )
        for index, length in enumerate(lengths)
    ]
