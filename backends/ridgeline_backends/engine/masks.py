"""Grammar masks, made while the step runs whose logits they will cut.

A sequence's next mask depends on the token chosen last, so it can be made from the moment the next
step is planned until that step's logits are there. One worker makes the masks of all sequences.
Knows no grammar: see `Constraint`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future

from ridgeline_backends.engine.api import Constraint


class MaskMaker:
    """The masks of one sequence, one for each token. Without an executor they are made when asked
    for."""

    def __init__(self, constraint: Constraint, executor: Executor | None = None) -> None:
        self._constraint = constraint
        self._executor = executor
        self._next: Future[bytes] | None = None

    def next_mask(self) -> Callable[[], bytes]:
        """Begin to make the mask for the next token; the result waits for it."""
        if self._executor is None:
            return self._constraint.mask
        if self._next is None:
            self._next = self._executor.submit(self._constraint.mask)
        return self._next.result

    def accept(self, token: int) -> None:
        """Take the token that was chosen with the latest mask."""
        if self._next is not None:
            # A mask that nobody waited for is still being made from the state that now changes.
            self._next.result()
            self._next = None
        self._constraint.accept(token)

    @property
    def finished(self) -> bool:
        return self._constraint.finished

    @property
    def error(self) -> str | None:
        return self._constraint.error
