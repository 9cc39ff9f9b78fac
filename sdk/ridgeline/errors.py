"""Every error that Ridgeline raises on purpose, in one tree.

    RidgelineError                  base: code, http_status, message, hint
    ├── InvalidInput                a value is wrong: names the field and what was expected      400
    ├── NotFound                    no resource of that name                                     404
    ├── AlreadyExists               the name is taken                                            409
    ├── NotReady                    it exists, but its state does not allow this                 409
    ├── Unsupported                 known, but this version or machine cannot do it              400
    ├── AccessDenied                no key, a wrong key, or a key without the right              403
    ├── Overloaded                  a queue is full; carries retry_after_s                       429
    ├── FailedWithLog               what was started failed: carries the last log lines          500
    │   ├── DeployFailed            an endpoint ended in Failed                                  500
    │   ├── ProcessingFailed        a processing job ended in Failed, or was stopped             500
    │   ├── TransformFailed         a transform job ended in Failed, or was stopped              500
    │   ├── TrainingFailed          a training job ended in Failed, or was stopped               500
    │   └── TuningFailed            a tuning job ended in Failed                                 500
    ├── InvocationFailed            the model server answered with an error                      424
    ├── Unavailable                 a part of the service is away; trying again helps            503
    │   └── NotRunning              no service answers where this client looked for one          503
    └── InternalError               a bug of ours                                                500

The message names the thing at fault; the hint says what to do next. The same class is rebuilt on
the client from ``code``, so a caller catches one class wherever the failure happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RidgelineError(Exception):
    """Base of the tree. ``str(error)`` is the message, with the hint on a line of its own."""

    code: str = "InternalError"
    http_status: int = 500

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidInput(RidgelineError):
    """A value is wrong. Raised before anything was changed."""

    code = "InvalidInput"
    http_status = 400


class NotFound(RidgelineError):
    """No resource of that name."""

    code = "NotFound"
    http_status = 404


class AlreadyExists(RidgelineError):
    """The name is taken."""

    code = "AlreadyExists"
    http_status = 409


class NotReady(RidgelineError):
    """The resource exists, but its state does not allow this."""

    code = "NotReady"
    http_status = 409


class Unsupported(RidgelineError):
    """Known, but this version or this machine cannot do it."""

    code = "Unsupported"
    http_status = 400


class AccessDenied(RidgelineError):
    """No key, a wrong key, or a key without the right."""

    code = "AccessDenied"
    http_status = 403


class Overloaded(RidgelineError):
    """A queue is full. ``retry_after_s`` says when to try again, in seconds."""

    code = "Overloaded"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: float = 1.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


LOG_HEADING = "\nLast log lines:\n"
"""What stands in a FailureReason between the cause and the lines of a log that it has room for."""


class FailedWithLog(RidgelineError):
    """Something that was started failed. ``log_tail`` holds the last lines it wrote."""

    code = "Failed"
    http_status = 500

    def __init__(self, message: str, *, log_tail: Iterable[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log_tail = tuple(log_tail)

    def __str__(self) -> str:
        tail = ("Last lines of its log:", *(f"  {line}" for line in self.log_tail))
        parts = (self.message, *(tail if self.log_tail else ()), self.hint)
        return "\n".join(part for part in parts if part)


class DeployFailed(FailedWithLog):
    """An endpoint ended in Failed. ``log_tail`` holds the last lines its replica wrote."""

    code = "DeployFailed"


class TrainingFailed(FailedWithLog):
    """A training job ended in Failed, or was stopped while somebody waited for its model."""

    code = "TrainingFailed"


class ProcessingFailed(FailedWithLog):
    """A processing job ended in Failed, or was stopped while somebody waited for it."""

    code = "ProcessingFailed"


class TransformFailed(FailedWithLog):
    """A transform job ended in Failed, or was stopped while somebody waited for it."""

    code = "TransformFailed"


class TuningFailed(FailedWithLog):
    """A tuning job ended in Failed: none of its training jobs has a value of the objective."""

    code = "TuningFailed"


class InvocationFailed(RidgelineError):
    """The model server answered with an error. ``original_status`` is its HTTP status."""

    code = "InvocationFailed"
    http_status = 424

    def __init__(self, message: str, *, original_status: int = 500, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.original_status = original_status


class Unavailable(RidgelineError):
    """A part of the service is away or restarting; trying again helps."""

    code = "Unavailable"
    http_status = 503


class NotRunning(Unavailable):
    """No service answers where this client looked. Raised before anything was sent."""

    code = "NotRunning"
    http_status = 503


class InternalError(RidgelineError):
    """A bug of ours."""

    code = "InternalError"
    http_status = 500


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that offers the nearest known name, or lists the known ones when none is near.

    A name that begins several, rightly spelt or nearly, is offered up to three of them.
    """
    names = sorted(known, key=lambda one: (len(one), one))
    near = _beginning_with(name, names) or get_close_matches(name, names, n=1, cutoff=0.8)
    near = near or _beginning_nearly_with(name, names)
    near = near or get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        *others, last = (repr(one) for one in near[:_OFFERED])
        return f"Did you mean {' or '.join([', '.join(others), last] if others else [last])}?"
    return f"Known: {', '.join(sorted(names))}." if names else ""


_OFFERED = 3
_SHORTEST_BEGINNING = 3


def _beginning_with(name: str, names: list[str]) -> list[str]:
    wanted = name.casefold()
    if len(wanted) < _SHORTEST_BEGINNING:
        return []
    return [one for one in names if one.casefold().startswith(wanted)]


def _beginning_nearly_with(name: str, names: list[str]) -> list[str]:
    """Names whose beginning is ``name`` with a letter missing, wrong or too many."""
    wanted = name.casefold()
    if len(wanted) <= _SHORTEST_BEGINNING:
        return []
    lengths = range(len(wanted) - 1, len(wanted) + 2)
    return [
        one
        for one in names
        if get_close_matches(wanted, [one.casefold()[:size] for size in lengths], n=1, cutoff=0.85)
    ]
