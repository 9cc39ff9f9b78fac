"""What a process said at its end, made readable: a traceback without what is not the user's code.

Text in, text out: reads no log. Of a traceback only the frames in the user's own code are shown,
because those of the server and of libraries say where we are installed and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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


def without_frames(log: Iterable[str], users: Sequence[str]) -> list[str]:
    """Lines without what a traceback says of code that does not lie below ``users``."""
    kept = []
    inside = shown = False
    for line in log:
        frame = _FRAME.match(line)
        if frame is not None:
            inside, shown = True, any(frame["path"].startswith(f"{path}/") for path in users)
        elif not line.startswith("    "):
            inside = False
        if not _NOISE.match(line) and line.strip() and (shown or not inside):
            kept.append(line)
    return kept


def last_within(lines: Sequence[str], room: int) -> list[str]:
    """As many of the last lines as ``room`` characters hold, line ends included."""
    kept = list(lines)
    while kept and len("\n".join(kept)) > room:
        del kept[0]
    return kept


def sentences(*parts: str) -> str:
    """A message and its hint as running text; empty parts are left out."""
    said = [part.strip() for part in parts if part.strip()]
    ended = [part if part[-1] in ".!?:" else f"{part}." for part in said[:-1]]
    return " ".join([*ended, *said[-1:]])


def is_out_of_memory(cause: str, log: Sequence[str]) -> bool:
    """Whether an allocation was refused, by what Python, torch and the C++ library say then."""
    return any(_OUT_OF_MEMORY.search(line) for line in (cause, *log))


def storable(text: str) -> str:
    """As every database takes it: without NUL, and without what stands for bytes that are no
    text."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def shortened(text: str, length: int) -> str:
    """The beginning and the end, where the text is too long."""
    if len(text) <= length:
        return text
    head = length // 2
    return text[:head] + " ... " + text[head + 5 - length :]
