"""What a simulated run measured, as a benchmark's client would: of the requests it saw answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from ridgeline_backends.neuron.serving.load import SECOND


@dataclass(slots=True)
class Answered:
    """Times of a request in nanoseconds. `tokens`: of its answer."""

    sent: int
    first: int
    done: int
    tokens: int


@dataclass(frozen=True)
class Outcome:
    """`gaps`: how often each time between two tokens occurred, in nanoseconds. `steps`: of the
    scheduler, skipped ones too. `given_up`: requests whose client did not wait any longer."""

    answered: tuple[Answered, ...]
    gaps: Counter[int]
    steps: int
    given_up: int
    busy_ns: int

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        if not self.answered:
            return 0.0
        begin = min(one.sent for one in self.answered)
        return (max(one.done for one in self.answered) - begin) / SECOND

    @property
    def requests_s(self) -> float:
        return len(self.answered) / self.seconds if self.answered else 0.0

    @property
    def tokens_s(self) -> float:
        """Tokens of answers a second."""
        return sum(one.tokens for one in self.answered) / self.seconds if self.answered else 0.0

    @property
    def utilisation(self) -> float:
        """The share of time in which a step ran."""
        return min(1.0, self.busy_ns / SECOND / self.seconds) if self.answered else 0.0

    def ttft(self, share: float) -> float:
        """Seconds to the first token that so many of the requests do not exceed."""
        return _quantile([one.first - one.sent for one in self.answered], share)

    def latency(self, share: float) -> float:
        """Seconds to the last token that so many of the requests do not exceed."""
        return _quantile([one.done - one.sent for one in self.answered], share)

    def gap(self, share: float) -> float:
        """Seconds between two tokens that so many of the gaps do not exceed."""
        rank = max(1, ceil(share * self.gaps.total()))
        for size in sorted(self.gaps):
            rank -= self.gaps[size]
            if rank <= 0:
                return size / SECOND
        return 0.0

    @property
    def ttft_mean(self) -> float:
        return _mean([one.first - one.sent for one in self.answered])

    @property
    def tpot_mean(self) -> float:
        """Seconds a token after the first, of requests with more than one."""
        rates = [
            (one.done - one.first) / (one.tokens - 1) for one in self.answered if one.tokens > 1
        ]
        return _mean(rates)


def _quantile(times: Sequence[int], share: float) -> float:
    if not times:
        return 0.0
    return sorted(times)[max(1, ceil(share * len(times))) - 1] / SECOND


def _mean(times: Sequence[float]) -> float:
    return sum(times) / len(times) / SECOND if times else 0.0
