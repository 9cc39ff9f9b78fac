"""Token ids to text, one token at a time, as if the whole sequence were decoded at once.

`push` gives the text that a token makes certain: never half a character, never a space that the
whole text would not have. `flush` gives what is left when no token follows. A generation continues
its prompt, so its first word keeps its space; a text of its own loses the one that decoders strip.

Where bytes are not UTF-8 the replacement character stands for them. In one case fewer stand there
than in a decode of the whole: sentencepiece's byte tokens, when characters of the same run of
bytes were complete, and so already given out, before the fault came.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ridgeline_service.serving.llm.text.pieces import LeadingSpace, PieceTable

_REPLACEMENT = "\ufffd"


class Detokenizer(ABC):
    """The text of one growing sequence. Special tokens have none, but for those ``shown``."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that has become certain with this token; often empty."""

    @abstractmethod
    def flush(self) -> str:
        """What was held back, when the sequence is over."""


class ByteLevelDetokenizer(Detokenizer):
    """Every token is bytes, and the text is all bytes read as UTF-8."""

    def __init__(self, pieces: PieceTable, shown: frozenset[int] = frozenset()) -> None:
        self._pieces = pieces
        self._shown = shown
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        piece = self._pieces[token_id]
        hidden = piece.special and token_id not in self._shown
        return "" if hidden else self._utf8.decode(piece.data)

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class SentencePieceDetokenizer(Detokenizer):
    """Tokens are words with marks for spaces; runs of byte tokens spell other characters."""

    def __init__(
        self, pieces: PieceTable, *, at_start: bool, shown: frozenset[int] = frozenset()
    ) -> None:
        self._pieces = pieces
        self._shown = shown
        self._leading = pieces.rules.leading if at_start else LeadingSpace.KEEP
        self._run = b""

    def push(self, token_id: int) -> str:
        piece = self._pieces[token_id]
        if piece.special and token_id not in self._shown:
            return ""
        if piece.raw_byte:
            self._run += piece.data
            return self._strip(self._complete_characters(), word=False)
        text = piece.data.decode()
        broken = self.flush()
        return broken + self._strip(text, word=True)

    def flush(self) -> str:
        broken, self._run = _REPLACEMENT * len(self._run), b""
        if broken:
            self._leading = LeadingSpace.KEEP
        return broken

    def _complete_characters(self) -> str:
        text = ""
        while self._run:
            try:
                text += self._run.decode()
                self._run = b""
            except UnicodeDecodeError as fault:
                text += self._run[: fault.start].decode()
                self._run = self._run[fault.start :]
                if fault.reason == "unexpected end of data":
                    break
                bad = fault.end - fault.start
                text += _REPLACEMENT * bad
                self._run = self._run[bad:]
        return text

    def _strip(self, text: str, *, word: bool) -> str:
        if self._leading is LeadingSpace.KEEP or not (text or word):
            return text
        leading, self._leading = self._leading, LeadingSpace.KEEP
        if leading is LeadingSpace.STRIP_MARKS:
            return text.replace(" ", "") if word else text
        return text.removeprefix(" ")


class WindowDetokenizer(Detokenizer):
    """For any other decoder: decode the latest tokens with and without the new one, and compare.

    The window starts at the token before the last that gave text, which is as far back as the
    decoders in use look.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(prompt[-4:])
        self._shown = len(self._ids)
        self._start = 0

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        return self._news(certain=True)

    def flush(self) -> str:
        return self._news(certain=False)

    def _news(self, *, certain: bool) -> str:
        before = self._decode(self._ids[self._start : self._shown])
        now = self._decode(self._ids[self._start :])
        if len(now) <= len(before) or (certain and now.endswith(_REPLACEMENT)):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return now[len(before) :]
