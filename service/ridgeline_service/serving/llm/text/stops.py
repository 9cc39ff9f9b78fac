"""Stop strings, found wherever token borders fall.

Text that may be the beginning of a stop string is held back until that is decided. The stop string
that ends first wins, as if the text had come one character at a time, so the result does not
depend on how the text was cut into tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class StopMatcher:
    """Watches one growing text. ``matched`` is the stop string that ended it, once one did; with
    ``keep`` it is shown as the text's end."""

    def __init__(self, stops: Sequence[str], *, keep: bool = False) -> None:
        self._keep = keep
        self._stops = tuple(dict.fromkeys(stop for stop in stops if stop))
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str, *, looking: bool = True) -> str:
        """Add text; returns what may be shown now. Nothing more is shown after a match.

        Without ``looking``, stop strings that end in ``text`` do not count.
        """
        if not self._stops:
            return text
        if self.matched is not None or not text:
            return ""
        known = len(self._held)
        text = self._held + text
        if looking and (found := [*self._ends(text, known)]):
            end, at, self.matched = min(found)
            self._held = ""
            return text[: end if self._keep else at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _ends(self, text: str, known: int) -> Iterator[tuple[int, int, str]]:
        """Where the stop strings end, begin, and which they are, that end behind what was known."""
        for stop in self._stops:
            at = text.find(stop, max(0, known - len(stop) + 1))
            if at >= 0:
                yield at + len(stop), at, stop

    def flush(self) -> str:
        """What was held back for a stop string that did not come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``stop``, and not all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
