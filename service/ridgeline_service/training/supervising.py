"""Watches a running script until its end: its deadline, the order to stop, what it writes.

Decides when it is asked to stop and when it is killed. Knows neither reports nor uploads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ridgeline_service.training.causes import Cause
from ridgeline_service.training.script import Ended, Script

LOOK_S = 0.2
OBSERVE_S = 1.0


@dataclass(frozen=True)
class Finished:
    """How the script ended, and why it was stopped if it was."""

    ended: Ended
    stopped: Cause


@dataclass(frozen=True)
class Rules:
    """``why_stop`` is asked at every look and says NONE to go on; ``observe`` is called every
    second and may name a cause too; a cause gives ``grace_s`` between SIGTERM and SIGKILL."""

    max_runtime_s: float
    why_stop: Callable[[], Cause]
    observe: Callable[[], Cause]
    grace_s: Callable[[Cause], float]


def until_ended(script: Script, rules: Rules, clock: Callable[[], float]) -> Finished:
    """Blocks until the script has ended. ``clock`` gives seconds, never going back."""
    deadline = clock() + rules.max_runtime_s
    observe_at = clock() + OBSERVE_S
    cause, kill_at, told = Cause.NONE, 0.0, False
    while (ended := script.wait(LOOK_S)) is None:
        now = clock()
        found = rules.why_stop()
        if now >= observe_at:
            observe_at = now + OBSERVE_S
            found = rules.observe() or found
        if cause is Cause.NONE:
            cause = found or (Cause.MAX_RUNTIME if now >= deadline else Cause.NONE)
            kill_at = now + rules.grace_s(cause)
        if cause is not Cause.NONE:
            told = told or script.ask_to_stop()
            if now >= kill_at:
                script.kill()
    return Finished(ended, cause)
