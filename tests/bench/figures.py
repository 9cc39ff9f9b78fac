"""From the times of a run's tokens to the figures that are reported. Knows no server."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """One request: when it was sent, when each piece of text came (s), and tokens it got.

    ``error`` is what the server answered instead; then there are no times.
    """

    sent: float
    arrivals: tuple[float, ...]
    tokens: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of a workload. Milliseconds, but for ``wall_s`` and ``tokens_per_s``."""

    requests: int
    wall_s: float
    tokens: int
    tokens_per_s: float
    first_token_p50: float
    first_token_p95: float
    per_token_p50: float
    gap_p99: float


class RunFailed(Exception):
    """A server answered some request with an error, or with fewer tokens than asked."""


def figures(requests: Sequence[RequestTimes], wall_s: float, expected_tokens: int) -> Figures:
    """Raises RunFailed unless every request got exactly ``expected_tokens``."""
    for request in requests:
        if request.error:
            raise RunFailed(request.error)
        if request.tokens != expected_tokens or not request.arrivals:
            raise RunFailed(f"{request.tokens} tokens of {expected_tokens} came.")
    first = [request.arrivals[0] - request.sent for request in requests]
    pace = [
        (request.arrivals[-1] - request.arrivals[0]) / max(1, request.tokens - 1)
        for request in requests
    ]
    gaps = [
        later - earlier
        for request in requests
        for earlier, later in zip(request.arrivals, request.arrivals[1:], strict=False)
    ]
    tokens = sum(request.tokens for request in requests)
    return Figures(
        requests=len(requests),
        wall_s=round(wall_s, 3),
        tokens=tokens,
        tokens_per_s=round(tokens / wall_s, 1),
        first_token_p50=_milliseconds(statistics.median(first)),
        first_token_p95=_milliseconds(percentile(first, 95)),
        per_token_p50=_milliseconds(statistics.median(pace)),
        gap_p99=_milliseconds(percentile(gaps, 99)),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, percent * len(ordered) // 100)]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
