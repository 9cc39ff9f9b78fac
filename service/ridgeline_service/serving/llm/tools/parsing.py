"""Tool calls in what a model says, found as it is said.

Each family of models marks its calls in its own way; `Family` names those we know, and its style
says how calls begin and end. Text that may be the beginning of a mark is held back until that is
decided. What looks like a call and is none stays text.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from ridgeline_service.serving.llm.tools.calls import CallDelta, CallReader


@dataclass(frozen=True, slots=True)
class _Style:
    """``opens`` begins calls; ``bare``: so does ``{`` at the start of an answer. After a call,
    ``between`` may stand before the next one or the end. ``forced``: there is nothing but calls,
    so that one which breaks off is one."""

    opens: tuple[str, ...]
    between: tuple[str, ...]
    bare: bool = False
    forced: bool = False


class Family(Enum):
    """How models write calls."""

    HERMES = _Style(("<tool_call>",), ("</tool_call>",))
    """Hermes 2 Pro and 3, Qwen 2.5 and 3, and any model that we tell how to."""

    MISTRAL = _Style(("[TOOL_CALLS]",), ("[", ",", "]"))
    LLAMA3 = _Style(("<|python_tag|>",), (";", ","), bare=True)
    FORCED = _Style((), ("[", ",", "]"), bare=True, forced=True)
    """An answer that a grammar makes a list of calls."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Words that may be special tokens, and must be seen all the same."""
        return (*self.value.opens, *(mark for mark in self.value.between if len(mark) > 1))


def family_of(template: str) -> Family:
    """The family whose marks a chat template uses."""
    if "[TOOL_CALLS]" in template:
        return Family.MISTRAL
    if "<tool_call>" in template:
        return Family.HERMES
    if "<|python_tag|>" in template or "<|eom_id|>" in template:
        return Family.LLAMA3
    return Family.HERMES


@dataclass(frozen=True, slots=True)
class Delta:
    """What became certain: text for the reader, news of calls, or both."""

    text: str = ""
    calls: tuple[CallDelta, ...] = ()


class _State(Enum):
    TEXT = auto()
    GAP = auto()
    CALL = auto()


class ToolParser:
    """Reads one answer. ``count`` calls have been found so far."""

    def __init__(self, family: Family, names: Collection[str]) -> None:
        self.count = 0
        self._style = family.value
        self._call = CallReader(0, names)
        self._names = names
        self._state = _State.GAP if self._style.bare else _State.TEXT
        self._buffer = ""
        # Read since the last certain thing; it turns out to be text if no call follows it.
        self._pending = ""
        self._behind_call = False
        self._said = False

    def push(self, text: str) -> Delta:
        """Add text."""
        self._buffer += text
        return self._run(final=False)

    def flush(self) -> Delta:
        """The answer is over: what was held back is text, unless it is a call that broke off."""
        return self._run(final=True)

    def _run(self, *, final: bool) -> Delta:
        text: list[str] = []
        calls: list[CallDelta] = []
        going = True
        while going:
            if self._state is _State.TEXT:
                going = self._text(text, final=final)
            elif self._state is _State.GAP:
                going = self._gap(text, final=final)
            else:
                going = self._in_call(text, calls, final=final)
        return Delta("".join(text), tuple(calls))

    def _text(self, shown: list[str], *, final: bool) -> bool:
        """Show text up to a mark; True if there is one."""
        found = [(at, m) for m in self._style.opens if (at := self._buffer.find(m)) >= 0]
        if found:
            at, mark = min(found)
            before, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
            self._enter_gap(mark)
        elif final:
            before, self._buffer = self._buffer, ""
        else:
            keep = max((_overlap(self._buffer, mark) for mark in self._style.opens), default=0)
            if not self._said and not self._buffer[: len(self._buffer) - keep].strip():
                keep = len(self._buffer)
            cut = len(self._buffer) - keep
            before, self._buffer = self._buffer[:cut], self._buffer[cut:]
        # White space in front of a call is layout, not an answer.
        if before and (self._said or before.strip() or not found):
            self._said = True
            shown.append(before)
        return bool(found)

    def _gap(self, shown: list[str], *, final: bool) -> bool:
        """Skip marks and white space, up to a call or to text."""
        stripped = self._buffer.lstrip()
        blank = self._buffer[: len(self._buffer) - len(stripped)]
        if stripped.startswith("{"):
            self._pending += blank
            self._buffer = stripped
            self._call = CallReader(self.count, self._names)
            self._state = _State.CALL
            return True
        marks = (*self._style.opens, *self._style.between)
        if not final and any(len(m) > len(stripped) and m.startswith(stripped) for m in marks):
            return False
        for mark in marks:
            if stripped.startswith(mark):
                self._buffer = stripped[len(mark) :]
                if mark in self._style.opens:
                    self._give_up(shown, blank)
                    self._enter_gap(mark)
                else:
                    self._pending += blank + mark
                return True
        self._give_up(shown, blank)
        self._buffer, self._state = stripped, _State.TEXT
        return True

    def _give_up(self, shown: list[str], blank: str) -> None:
        """No call came: what stands since the last certain thing is text, unless a call does."""
        if not self._behind_call and self._pending + blank:
            shown.append(self._pending + blank)
            self._said = True
        self._pending = ""

    def _enter_gap(self, mark: str) -> None:
        self._state, self._pending, self._behind_call = _State.GAP, mark, False

    def _in_call(self, shown: list[str], calls: list[CallDelta], *, final: bool) -> bool:
        news, self._buffer = self._call.push(self._buffer)
        calls.extend(news)
        if self._call.done and not self._call.rejected:
            self.count += 1
            self._state, self._pending, self._behind_call = _State.GAP, "", True
            return True
        if final and self._style.forced and (named := self._call.cut_off()):
            calls.extend(named)
            self.count += 1
            return False
        if self._call.rejected or (final and not self._call.opened):
            shown.append(self._pending + self._call.text)
            self._said, self._pending, self._state = True, "", _State.TEXT
            return True
        if final and self._call.opened:
            self.count += 1
        return False


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``mark``, and not all of it."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
