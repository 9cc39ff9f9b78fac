"""A runner that waits for its order: how it is told what to make ready, and when to go on.

    the control plane                     the runner
    make_ready(folder, Standby(...))
                                          wait(folder, prepare): prepares, says ready, waits
    is_ready(folder)
    write_order(folder, ...); wake(folder)
                                          ... returns

It waits on a named pipe, without looking again and again; what counts is the order, so that a
signal too many or too few harms nothing.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ridgeline_service.files import write_atomic
from ridgeline_service.training.order import has_order

_FILE = "standby.json"
_READY = "ready"
_PIPE = "wake"


@dataclass(frozen=True)
class Standby:
    """The environment of ``runtime`` in ``cache`` is what the order will most likely need."""

    runtime: str
    cache: str
    region: str


def make_ready(folder: Path, what: Standby) -> None:
    """Before the runner is started."""
    os.mkfifo(folder / _PIPE, 0o600)
    write_atomic(folder / _FILE, json.dumps(asdict(what)), mode=0o600)


def waits(folder: Path) -> bool:
    """Whether a runner there has no order yet."""
    return (folder / _FILE).exists() and not has_order(folder)


def is_ready(folder: Path) -> bool:
    return (folder / _READY).exists()


def wake(folder: Path) -> None:
    """After the order was written."""
    try:
        pipe = os.open(folder / _PIPE, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return  # nobody waits there: it will find the order, or it is gone
    try:
        os.write(pipe, b"1")
    finally:
        os.close(pipe)


def wait(folder: Path, prepare: Callable[[Standby], None]) -> None:
    """Prepare, and return when the order is there."""
    pipe = os.open(folder / _PIPE, os.O_RDONLY | os.O_NONBLOCK)
    try:
        prepare(Standby(**json.loads((folder / _FILE).read_text())))
        (folder / _READY).touch()
        woken = select.poll()
        woken.register(pipe, select.POLLIN)
        while not has_order(folder):
            woken.poll()
    finally:
        os.close(pipe)
