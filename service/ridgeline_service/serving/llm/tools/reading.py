"""One answer of a chat as its reader sees it: content, and the calls in it.

Three ways to a call: a grammar made the whole answer the arguments of one named function, or a list
of calls, or the model decided and its calls stand between other words.
"""

from __future__ import annotations

from pydantic_core import from_json

from ridgeline_service.serving.llm.tools.calls import CallDelta
from ridgeline_service.serving.llm.tools.definitions import ToolUse
from ridgeline_service.serving.llm.tools.parsing import Delta, Family, ToolParser


class AnswerReader:
    """Reads the text of one answer as it comes. ``called``: whether there is a call in it;
    ``forced``: whether there is nothing but calls, however it ends."""

    def __init__(self, use: ToolUse | None, family: Family) -> None:
        self._named = None if use is None else use.named
        self._parser: ToolParser | None = None
        self._began = False
        self._arguments = ""
        self._parallel = use is None or use.parallel
        self.forced = use is not None and use.forced
        if use is not None and use.named is None:
            self._parser = ToolParser(Family.FORCED if use.required else family, use.names)

    @property
    def called(self) -> bool:
        return self._began or (self._parser is not None and self._parser.count > 0)

    @property
    def whole(self) -> bool:
        """Whether all of the last call is there."""
        try:
            from_json(self._arguments)
        except ValueError:
            return False
        return True

    def push(self, text: str, *, final: bool = False) -> Delta:
        """Add text; with ``final`` it is the last."""
        delta = self._read(text, final=final)
        for call in delta.calls:
            self._arguments = (self._arguments if call.name is None else "") + call.arguments
        return delta

    def _read(self, text: str, *, final: bool) -> Delta:
        if self._named is not None:
            if not text:
                return Delta()
            name, self._began = None if self._began else self._named, True
            return Delta(calls=(CallDelta(0, name, text),))
        if self._parser is None:
            return Delta(text)
        delta = self._parser.push(text)
        if final:
            rest = self._parser.flush()
            delta = Delta(delta.text + rest.text, delta.calls + rest.calls)
        # What stands around forced calls, and one that broke off too soon, is the grammar's form.
        text = "" if self.forced else delta.text
        # Where one call is all that was asked for others are not shown.
        calls = tuple(call for call in delta.calls if self._parallel or call.index == 0)
        return Delta(text, calls)
