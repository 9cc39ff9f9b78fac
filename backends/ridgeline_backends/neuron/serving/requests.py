"""A replica that answers whole requests one after the other, as those of encoders do, on a virtual
clock."""

from __future__ import annotations

from collections import Counter, deque
from itertools import count, islice

from ridgeline_backends.neuron.serving.load import SECOND, Load
from ridgeline_backends.neuron.serving.outcome import Answered, Outcome


def answer_each(seconds: float, load: Load) -> Outcome:
    """What clients of one replica see where every request takes so long. None gives up."""
    took = max(1, round(seconds * SECOND))
    times = load.times()
    # Clients send again in the order in which they were answered.
    clients = None if load.clients is None else deque(islice(times, load.clients))
    answered: list[Answered] = []
    free = 0
    for _ in count() if load.requests is None else range(load.requests):
        sent = next(times) if clients is None else clients.popleft()
        if load.end_ns is not None and sent >= load.end_ns:
            break
        free = max(sent, free) + took
        answered.append(Answered(sent, free, free, 1))
        if clients is not None:
            clients.append(load.again_ns(free))
    kept = [one for one in answered if load.end_ns is None or one.done <= load.end_ns]
    return Outcome(tuple(kept), Counter(), len(answered), 0, took * len(kept))
