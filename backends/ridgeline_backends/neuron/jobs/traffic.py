"""SageMaker's traffic patterns as levels of users."""

from __future__ import annotations

from collections.abc import Mapping

_LEVELS = 12
"""A phase that spawns more users than this comes in so many steps."""


def levels_of(pattern: Mapping[str, object], most_s: float) -> list[tuple[int, float]]:
    """Users and seconds of SageMaker's traffic pattern, cut after `most_s`. New users of a phase
    come evenly, `SpawnRate` of them a minute, in a few steps."""
    found: list[tuple[int, float]] = []
    for phase in _listed(pattern.get("Phases")):
        begun, spawn = phase.get("InitialNumberOfUsers", 1), phase.get("SpawnRate", 0)
        whole = phase.get("DurationInSeconds", 120)
        new = int(spawn * whole / 60)
        steps = min(new, _LEVELS - 1) + 1
        found += [
            (begun + round(new * step / max(1, steps - 1)), whole / steps) for step in range(steps)
        ]
    stairs = pattern.get("Stairs")
    if isinstance(stairs, Mapping):
        each, count = stairs.get("UsersPerStep", 1), stairs.get("NumberOfSteps", 1)
        length = float(stairs.get("DurationInSeconds", 120))
        found += [(each * step, length) for step in range(1, count + 1)]
    kept: list[tuple[int, float]] = []
    for users, seconds in found:
        left = most_s - sum(each for _, each in kept)
        if left > 0:
            kept.append((users, min(seconds, left)))
    return kept


def _listed(value: object) -> list[Mapping[str, int]]:
    return value if isinstance(value, list) else []
