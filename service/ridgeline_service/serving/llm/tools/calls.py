"""One tool call, read while a model writes it.

Models write ``{"name": "f", "arguments": {...}}``, some with ``parameters`` for ``arguments``.
Written in that order its arguments are given out as they come; otherwise when it is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from ridgeline_service.serving.llm.tools.spans import JsonSpan

_HEAD = re.compile(
    r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)


_NAMED = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class CallDelta:
    """News of call ``index`` of an answer. The first of each has its name."""

    index: int
    name: str | None
    arguments: str


class CallReader:
    """Reads one call that begins with ``{``. ``names`` are those of the tools.

    ``done`` when its object is closed; ``rejected`` if that is no call, and then ``text`` is all
    that was read.
    """

    def __init__(self, index: int, names: Collection[str]) -> None:
        self.done = False
        self.rejected = False
        self.text = ""
        self._index = index
        self._names = names
        self._whole = JsonSpan()
        self._arguments: JsonSpan | None = None

    @property
    def opened(self) -> bool:
        """Whether its name is out, so that it counts as a call even if it breaks off."""
        return self._arguments is not None or (self.done and not self.rejected)

    def push(self, text: str) -> tuple[list[CallDelta], str]:
        """The news in ``text``, and what of it comes after the call."""
        taken = self._whole.push(text)
        own, rest = text[:taken], text[taken:]
        self.text += own
        self.done = self._whole.done
        if self._arguments is not None:
            return self._more(own), rest
        head = _HEAD.match(self.text)
        if head is not None:
            name = _string(head[1])
            if name is not None and name in self._names:
                self._arguments = JsonSpan()
                first = CallDelta(self._index, name, "")
                return [first, *self._more(self.text[head.end() :])], rest
        if self.done:
            return self._at_once(), rest
        return [], rest

    def cut_off(self) -> list[CallDelta]:
        """The call, if its name is known and nothing was told of it, for no more of it comes."""
        head = _NAMED.match(self.text)
        if self.opened or head is None:
            return []
        name = _string(head[1])
        return [CallDelta(self._index, name, "")] if name in self._names else []

    def _more(self, text: str) -> list[CallDelta]:
        span = self._arguments
        if span is None or span.done:
            return []
        part = text[: span.push(text)]
        return [CallDelta(self._index, None, part)] if part else []

    def _at_once(self) -> list[CallDelta]:
        call = read_call(self.text)
        if call is None or call[0] not in self._names:
            self.rejected = True
            return []
        return [CallDelta(self._index, *call)]


def read_call(text: str) -> tuple[str, str] | None:
    """Name and arguments (as JSON) of a whole call, or None if it is something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str):
        return None
    if isinstance(arguments, str):
        return name, arguments
    return (
        (name, json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
    )


def _string(literal: str) -> str | None:
    try:
        value = json.loads(literal)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
