"""What a failure says to its user: the cause in the first sentence, then the last log lines.

Text in, text out: reads no log and no row.
"""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline.errors import LOG_HEADING
from ridgeline_service.endings import last_within, shortened, without_frames
from ridgeline_service.runtime.sandbox import MODEL_DIR
from ridgeline_service.store.states import Reason

FAILURE_LENGTH = 1024
"""The longest FailureReason of SageMaker."""

LOG_LINES_READ = 60
LOG_LINES_SHOWN = 12

_LINE_LENGTH = 240
_CAUSE_ROOM = 640


def failure_text(reason: Reason, message: str) -> str:
    """One FailureReason; ``message`` is what ``failure_message`` made."""
    if not message:
        return reason.words
    return shortened(f"{reason.words.rstrip('.')}: {message}", FAILURE_LENGTH)


def failure_message(reason: Reason, cause: str, log: Sequence[str] = ()) -> str:
    """The cause and as many of the last log lines as a FailureReason holds beside it."""
    room = FAILURE_LENGTH - len(reason.words) - len(": ")
    lines = [shortened(line, _LINE_LENGTH) for line in without_frames(log, (MODEL_DIR,))][
        -LOG_LINES_SHOWN:
    ]
    if not lines:
        return shortened(cause, room)
    cause = shortened(cause, _CAUSE_ROOM)
    room -= len(cause) + len(LOG_HEADING)
    lines = last_within(lines, room)
    return cause + LOG_HEADING + "\n".join(lines) if lines else cause
