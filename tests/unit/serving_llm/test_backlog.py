"""What a reader leaves lying is bounded, and whoever keeps up never notices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ridgeline_backends.engine import Engine, EngineOutput, EngineStats, SamplingParams, Sink
from ridgeline_service.serving.llm.errors import ReaderTooSlow
from ridgeline_service.serving.llm.generation import (
    MAX_BACKLOG,
    Generation,
    Mailbox,
    SequencePlan,
)

from .conftest import byte_tokenizer


class Tap(Engine):
    """Says what the test says, to every sequence."""

    max_model_len = 10**9

    def __init__(self) -> None:
        self.sinks: dict[str, Sink] = {}
        self.cancelled: list[str] = []

    def submit(
        self, sequence_id: str, prompt: Sequence[int], params: SamplingParams, sink: Sink,
        **_: object,
    ) -> None:  # fmt: skip
        self.sinks[sequence_id] = sink

    def cancel(self, sequence_id: str) -> None:
        self.cancelled.append(sequence_id)

    def pour(self, count: int) -> None:
        for name, sink in self.sinks.items():
            for _ in range(count):
                sink(EngineOutput(sequence_id=name, token_ids=(65,)))

    def stats(self) -> EngineStats:
        return EngineStats()

    def start(self) -> None: ...

    def stop(self) -> None: ...


def begin(engine: Tap, sequences: int = 1) -> Generation:
    plan = SequencePlan((1,), SamplingParams(max_tokens=10**8))
    mailbox = Mailbox(asyncio.get_running_loop())
    ids = [f"s{index}" for index in range(sequences)]
    return Generation(engine, byte_tokenizer(), mailbox, [plan] * sequences, ids)


async def test_a_reader_that_leaves_too_much_lying_is_cut_off() -> None:
    engine = Tap()
    with begin(engine, sequences=2) as generation:
        chunks = generation.chunks()
        engine.pour(1)
        await anext(chunks)
        engine.pour(MAX_BACKLOG)
        await asyncio.sleep(0)
        assert set(engine.cancelled) == {"s0", "s1"}
        engine.pour(100)
        for _ in range(MAX_BACKLOG):
            await anext(chunks)  # what lay there is not lost
        with pytest.raises(ReaderTooSlow, match=str(MAX_BACKLOG)):
            await anext(chunks)


async def test_one_that_keeps_up_gets_everything() -> None:
    engine = Tap()
    with begin(engine) as generation:
        chunks = generation.chunks()
        for _ in range(3):
            engine.pour(MAX_BACKLOG)
            for _ in range(MAX_BACKLOG):
                await anext(chunks)
        assert engine.cancelled == []
