"""What clients do: when requests come, how long they are, and when a client gives up.

Times are whole nanoseconds of a virtual clock. Everything follows from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of prompts and answers: normally distributed about their means."""

    prompt: int
    answer: int
    prompt_spread: float = 0.0
    answer_spread: float = 0.0

    def within(
        self, longest: int | None, *, prompt: int | None = None, answer: int | None = None
    ) -> Lengths:
        """These, or what was given in their place: of what was not, no more than there are
        positions for, four of five for the prompt where neither was."""
        if prompt is None and answer is None:
            if longest is None or self.prompt + self.answer <= longest:
                return self
            first = max(1, longest * 4 // 5)
            return replace(self, prompt=first, answer=max(1, longest - first))
        room = longest or self.prompt + self.answer + (prompt or 0) + (answer or 0)
        if prompt is None:
            prompt = max(1, min(self.prompt, room - (answer or 0)))
        if answer is None:
            answer = max(1, min(self.answer, room - prompt))
        return replace(self, prompt=prompt, answer=answer)

    def draw(self, random: Random) -> tuple[int, int]:
        """Of the next request, at least one token each."""
        return (
            _about(self.prompt, self.prompt_spread, random),
            _about(self.answer, self.answer_spread, random),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Either `rate` requests a second, spread as `arrivals` says, or `clients` that each send the
    next request when the one before has been answered. It ends with `requests` of them, or
    with `seconds`, after which none is sent and those under way are not counted. A client gives a
    request up after `timeout_s`, or with `streamed` only if no token has come by then. One that
    has its answer sends again `pause_s` later, at the next of the moments, `tick_s` apart, at which
    it looks.
    """

    lengths: Lengths
    rate: float | None = None
    arrivals: Literal["poisson", "fixed"] = "poisson"
    clients: int | None = None
    requests: int | None = None
    seconds: float | None = None
    timeout_s: float | None = None
    streamed: bool = False
    pause_s: float = 0.0
    tick_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.clients is None):
            raise ValueError("a load has a rate or a number of clients")
        if self.requests is None and self.seconds is None:
            raise ValueError("a load ends after a number of requests or of seconds")

    @property
    def end_ns(self) -> int | None:
        """When the last request can be sent."""
        return None if self.seconds is None else round(self.seconds * SECOND)

    @property
    def timeout_ns(self) -> int | None:
        return None if self.timeout_s is None else round(self.timeout_s * SECOND)

    def again_ns(self, now: int) -> int:
        """When a client sends again that heard at `now` that its request has ended."""
        ready = now + round(self.pause_s * SECOND)
        tick = round(self.tick_s * SECOND)
        return -(-ready // tick) * tick if tick else ready

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Lengths of prompt and answer of each request, without end."""
        random = Random(self.seed)  # noqa: S311  no secret
        while True:
            yield self.lengths.draw(random)

    def times(self) -> Iterator[int]:
        """When requests come, without end; of clients only the first of each."""
        if self.clients is not None:
            yield from [0] * self.clients
            return
        assert self.rate is not None
        random = Random(self.seed + 1)  # noqa: S311
        now = 0.0
        while True:
            yield round(now)
            gap = random.expovariate(self.rate) if self.arrivals == "poisson" else 1 / self.rate
            now += gap * SECOND


def _about(mean: int, spread: float, random: Random) -> int:
    return max(1, round(random.gauss(mean, spread))) if spread else mean
