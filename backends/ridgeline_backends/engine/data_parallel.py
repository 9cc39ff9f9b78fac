"""Several copies of one model behind one intake: each sequence goes to the engine with the fewest.

Each copy is an engine with a runner, a scheduler, KV memory and a thread of its own; they share
nothing but what their runners share. Knows neither runners nor schedulers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from threading import Lock

from ridgeline_backends.engine.api import (
    Engine,
    EngineOutput,
    EngineStats,
    SamplingParams,
    Sink,
)
from ridgeline_backends.errors import DuplicateSequence

_ADDED = tuple(
    field.name
    for field in fields(EngineStats)
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
)


class DataParallelEngine(Engine):
    """`engines` are alike, and at least one. Adapters are not shared out to them."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        self._places: dict[str, int] = {}
        self._held = [0] * len(engines)
        self._lock = Lock()

    @property
    def max_model_len(self) -> int:
        return self.engines[0].max_model_len

    def submit(
        self,
        sequence_id: str,
        prompt: Sequence[int],
        params: SamplingParams,
        sink: Sink,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        adapter: str | None = None,
    ) -> None:
        def hear(output: EngineOutput) -> None:
            if output.finish_reason is not None:
                self._forget(sequence_id)
            sink(output)

        engine = self.engines[self._take(sequence_id)]
        try:
            engine.submit(
                sequence_id,
                prompt,
                params,
                hear,
                priority=priority,
                timeout_s=timeout_s,
                adapter=adapter,
            )
        except Exception:
            self._forget(sequence_id)
            raise

    def _take(self, sequence_id: str) -> int:
        """Where a sequence goes. Raises `DuplicateSequence`."""
        with self._lock:
            if sequence_id in self._places:
                raise DuplicateSequence(sequence_id)
            place = self._held.index(min(self._held))
            self._places[sequence_id] = place
            self._held[place] += 1
            return place

    def _forget(self, sequence_id: str) -> None:
        with self._lock:
            self._held[self._places.pop(sequence_id)] -= 1

    def cancel(self, sequence_id: str) -> None:
        place = self._places.get(sequence_id)
        if place is not None:
            self.engines[place].cancel(sequence_id)

    def stats(self) -> EngineStats:
        """Of all copies together; alive while each of them is."""
        found = [engine.stats() for engine in self.engines]
        simulated = [one.simulated for one in found if one.simulated is not None]
        return replace(
            found[0],
            **{name: sum(getattr(one, name) for one in found) for name in _ADDED},
            alive=all(one.alive for one in found),
            simulated=sum(simulated[1:], simulated[0]) if simulated else None,
        )

    def start(self) -> None:
        for engine in self.engines:
            engine.start()

    def stop(self) -> None:
        # At once: each goes on with its step until it hears of it.
        with ThreadPoolExecutor(len(self.engines)) as pool:
            deque(pool.map(lambda engine: engine.stop(), self.engines), maxlen=0)
