"""The LoRA adapters of an engine: which are loaded, who uses them, and how they come and go.

An adapter is read on the caller's thread and given to the runner between two steps, so no step
sees half of one. One that is to go is refused to new sequences at once and taken away when the last
that uses it has ended. Knows neither tensors nor files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock

from ridgeline_backends.base import LoraRunner
from ridgeline_backends.errors import (
    AdapterExists,
    AdaptersUnsupported,
    TooManyAdapters,
    UnknownAdapter,
)

BetweenSteps = Callable[[Callable[[], None]], None]
"""Runs something while no step runs, and returns when that is done."""


@dataclass(slots=True, eq=False)
class _Adapter:
    salt: bytes
    ready: bool = False
    users: int = 0
    leaving: Future[None] | None = None


class Adapters:
    """Thread-safe but for `sweep`, which belongs to the engine's thread."""

    def __init__(self, runner: LoraRunner | None) -> None:
        self._runner = runner
        self._lock = Lock()
        self._known: dict[str, _Adapter] = {}
        self._loads = count()
        self.names: tuple[str, ...] = ()

    def load(self, name: str, directory: Path, between_steps: BetweenSteps) -> None:
        """Raises `AdaptersUnsupported`, `AdapterExists`, `TooManyAdapters`, `InvalidAdapter`."""
        runner = self._runner
        if runner is None or not self._takes_any:
            raise AdaptersUnsupported
        with self._lock:
            if name in self._known:
                raise AdapterExists(name)
            if len(self._known) >= runner.max_adapters:
                raise TooManyAdapters(runner.max_adapters)
            # Numbered, so that no prefix of an earlier adapter of the same name is found again.
            adapter = _Adapter(f"adapter {next(self._loads)}".encode())
            self._known[name] = adapter
        try:
            read = runner.read_adapter(name, directory)
            between_steps(lambda: runner.attach_adapter(read))
        except BaseException:
            with self._lock:
                del self._known[name]
            raise
        with self._lock:
            adapter.ready = True
            self._list()

    def acquire(self, name: str) -> bytes:
        """Note one more sequence that uses it; what its block hashes begin with. Raises
        `UnknownAdapter`."""
        with self._lock:
            adapter = self._usable(name)
            adapter.users += 1
            return adapter.salt

    def release(self, name: str) -> None:
        with self._lock:
            self._known[name].users -= 1

    def leave(self, name: str) -> Future[None]:
        """Refuse it from now on. Raises `UnknownAdapter`."""
        with self._lock:
            adapter = self._usable(name)
            adapter.leaving = Future()
            self._list()
            return adapter.leaving

    def sweep(self) -> None:
        """Take away those that are to go and that nobody uses any more."""
        if len(self.names) == len(self._known):
            return
        with self._lock:
            gone = {n: a.leaving for n, a in self._known.items() if a.leaving and not a.users}
        for name, done in gone.items():
            assert self._runner is not None
            self._runner.detach_adapter(name)
            with self._lock:
                del self._known[name]
            done.set_result(None)

    def check_integrity(self, used: Iterable[str | None]) -> None:
        """Raise `AssertionError` unless `used` are the users that were counted."""
        counted = {name: adapter.users for name, adapter in self._known.items() if adapter.users}
        assert counted == Counter(name for name in used if name is not None), "miscounted users"

    def _usable(self, name: str) -> _Adapter:
        adapter = self._known.get(name)
        if adapter is None or not adapter.ready or adapter.leaving is not None:
            raise UnknownAdapter(name, self.names if self._takes_any else None)
        return adapter

    @property
    def _takes_any(self) -> bool:
        return self._runner is not None and self._runner.max_adapters > 0

    def _list(self) -> None:
        self.names = tuple(name for name, a in self._known.items() if a.ready and a.leaving is None)
