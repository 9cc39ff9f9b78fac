"""What a row of a step costs beside the rest of it, learned from the steps that ran.

Knows no clock: times are told.
"""

from __future__ import annotations

_FORGET = 0.98
"""Weight of a step against the next one: the latest fifty or so count."""

_SPREAD = 0.25
"""Variance of rows below which nothing can be said about one row more."""

_OUTLIER = 3.0
"""A step that took so many times what was expected was held up by something else."""

_MARGIN = 1.1
"""Guesses are to be better than none by this factor: neither figure is exact, and a large batch,
where rows cost nearly all of a step, would win or lose a percent or two by chance."""


class StepCosts:
    """A line through (rows, seconds) of decode steps, by least squares that forget.

    With rows that do not vary the line is forgotten in time, and has to be tried out again.
    """

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._draft = 0.0

    def step(self, rows: int, seconds: float) -> None:
        """A step of nothing but decodes has run."""
        line = self._line()
        if line is not None:
            seconds = min(seconds, _OUTLIER * (line[0] + line[1] * rows))
        self._weight = _FORGET * self._weight + 1
        self._x = _FORGET * self._x + rows
        self._y = _FORGET * self._y + seconds
        self._xx = _FORGET * self._xx + rows * rows
        self._xy = _FORGET * self._xy + rows * seconds

    def drafted(self, guesses: int, seconds: float) -> None:
        """A drafter took that time."""
        if guesses and seconds:
            new = seconds / guesses
            self._draft += (0.2 if self._draft else 1.0) * (new - self._draft)

    def of(self, sequences: int) -> tuple[float, float] | None:
        """Seconds of a step for each of so many sequences without guesses, and of one guess with
        its making. None: not known."""
        line = self._line()
        if line is None:
            return None
        fixed, row = line
        return (fixed + row * sequences) / sequences, row + self._draft

    def _line(self) -> tuple[float, float] | None:
        if self._weight < 2:
            return None
        mean = self._x / self._weight
        variance = self._xx / self._weight - mean * mean
        if variance < _SPREAD:
            return None
        seconds = self._y / self._weight
        slope = max(0.0, (self._xy / self._weight - mean * seconds) / variance)
        # A line that meets the axis below zero says that rows cost everything.
        slope = min(slope, seconds / mean)
        return seconds - slope * mean, slope


def best_length(right: float, share: float, guess: float, most: int) -> int:
    """How many guesses bring the most tokens per second: each is right with chance `right` if all
    before it are, costs `guess` seconds, and comes on top of `share` seconds for one token."""
    best, best_rate = 0, _MARGIN / share
    tokens = chance = 1.0
    for length in range(1, most + 1):
        chance *= right
        tokens += chance
        rate = tokens / (share + length * guess)
        if rate > best_rate:
            best, best_rate = length, rate
    return best
