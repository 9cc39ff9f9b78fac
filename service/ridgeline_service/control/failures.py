"""What a failure says to its user: the cause in the first sentence, then the last log lines.

Text in, text out: reads no log and no row. Of a traceback only the frames in the user's own code
are shown, because those of the server and of libraries say where we are installed and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ridgeline_service.runtime.sandbox import MODEL_DIR
from ridgeline_service.store.states import Reason

FAILURE_LENGTH = 1024
"""The longest FailureReason of SageMaker."""

LOG_LINES_READ = 60
LOG_LINES_SHOWN = 12

_LINE_LENGTH = 240
_HEADING = "\nLast log lines:\n"
_CAUSE_ROOM = 640
_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line \d+')
_NOISE = re.compile(
    r"^(Traceback \(most recent call last\):"
    r"|During handling of the above exception.*"
    r"|The above exception was the direct cause.*"
    r"|\s*[\^~]+\s*)$"
)
_OUT_OF_MEMORY = re.compile(
    r"(MemoryError\b|std::bad_alloc|[Cc]an(not|'t) allocate memory|not enough memory)"
)


def failure_text(reason: Reason, message: str) -> str:
    """One FailureReason; ``message`` is what ``failure_message`` made."""
    if not message:
        return reason.words
    return _shortened(f"{reason.words.rstrip('.')}: {message}", FAILURE_LENGTH)


def failure_message(reason: Reason, cause: str, log: Sequence[str] = ()) -> str:
    """The cause and as many of the last log lines as a FailureReason holds beside it."""
    room = FAILURE_LENGTH - len(reason.words) - len(": ")
    lines = [_shortened(line, _LINE_LENGTH) for line in without_frames(log)][-LOG_LINES_SHOWN:]
    if not lines:
        return _shortened(cause, room)
    cause = _shortened(cause, _CAUSE_ROOM)
    room -= len(cause) + len(_HEADING)
    while lines and len("\n".join(lines)) > room:
        del lines[0]
    return cause + _HEADING + "\n".join(lines) if lines else cause


def without_frames(log: Iterable[str]) -> list[str]:
    """Lines without what a traceback says of code that is not the user's."""
    kept = []
    inside = shown = False
    for line in log:
        frame = _FRAME.match(line)
        if frame is not None:
            inside, shown = True, frame["path"].startswith(f"{MODEL_DIR}/")
        elif not line.startswith("    "):
            inside = False
        if not _NOISE.match(line) and line.strip() and (shown or not inside):
            kept.append(line)
    return kept


def sentences(*parts: str) -> str:
    """A message and its hint as running text; empty parts are left out."""
    said = [part.strip() for part in parts if part.strip()]
    ended = [part if part[-1] in ".!?:" else f"{part}." for part in said[:-1]]
    return " ".join([*ended, *said[-1:]])


def is_out_of_memory(cause: str, log: Sequence[str]) -> bool:
    """Whether an allocation was refused, by what Python, torch and the C++ library say then."""
    return any(_OUT_OF_MEMORY.search(line) for line in (cause, *log))


def _shortened(text: str, length: int) -> str:
    """The beginning and the end, where the text is too long."""
    if len(text) <= length:
        return text
    head = length // 2
    return text[:head] + " ... " + text[head + 5 - length :]
