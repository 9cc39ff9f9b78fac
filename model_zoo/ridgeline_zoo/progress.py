"""How slow work tells that it moves: one callable, so that display never leaks into logic."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with a stage ("download", "prepare") and bytes; ``total`` is 0 while unknown."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Progress nobody watches."""
