"""What a replica answers instead of a result, and how each kind of client reads it.

OpenAI clients want ``{"error": {...}}``; TGI's and LMI's clients want a flat ``error`` string.
Errors of the engine and of the service come through here as they are: status, message and hint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ridgeline.errors import InternalError, InvalidInput, NotReady, Overloaded, RidgelineError
from ridgeline_backends.engine import (
    EngineOutput,
    Failure,
    FinishReason,
    InvalidSampling,
    PromptTooLong,
    QueueFull,
)
from ridgeline_backends.errors import BackendError

DAMAGED = (
    "Its weights are damaged, or its numbers overflow in this data type: fetch the files anew, or "
    "deploy with OPTION_DTYPE=fp32."
)
"""What to do about a model that computes no finite numbers."""


class BadRequest(InvalidInput):
    """A request that cannot be served as it stands; ``param`` names the field at fault."""

    code = "invalid_request"

    def __init__(
        self, message: str, *, param: str | None = None, hint: str = "", code: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.param = param


class UnsupportedParameter(BadRequest):
    """A field that the API has and this server does not, with a value that would matter."""

    code = "unsupported_parameter"


class ContextLengthExceeded(BadRequest):
    """The prompt has more tokens than the replica takes; the message gives both numbers.

    ``tokens`` None: they were not counted, for there are more whatever they are.
    """

    code = "context_length_exceeded"

    def __init__(self, tokens: int | None, limit: int, *, param: str, hint: str = "") -> None:
        counted = f"more than {limit}" if tokens is None else f"{tokens}"
        super().__init__(
            f"{param} has {counted} tokens; this endpoint takes at most {limit}.",
            param=param,
            hint=hint or "Shorten it, or deploy with a larger context length.",
        )


class GrammarTooComplex(BadRequest):
    """The form that was asked for has too many ways to go on to be followed."""

    code = "grammar_too_complex"

    def __init__(self, why: str, *, param: str | None = None) -> None:
        what = f"{param}: it" if param else "The form that was asked for"
        super().__init__(
            f"{what} is too complex to be followed: {why}.",
            param=param,
            hint="Ask for fewer alternatives, optional properties or repetitions.",
        )


class BodyTooLarge(BadRequest):
    http_status = 413
    code = "body_too_large"


class UnknownRoute(RidgelineError):
    http_status = 404
    code = "unknown_route"


class WrongMethod(RidgelineError):
    http_status = 405
    code = "method_not_allowed"


class TokenRefused(RidgelineError):
    """Only the gateway and the control plane hold this replica's token."""

    http_status = 401
    code = "unauthorized"


class ModelLoading(NotReady):
    http_status = 503
    code = "model_loading"


class DeviceFailed(NotReady):
    """What the model runs on failed in an earlier request, for good."""

    http_status = 503
    code = "device_failed"


class GenerationFailed(InternalError):
    """The engine gave a sequence up."""

    code = "generation_failed"


class LogitsNotFinite(GenerationFailed):
    """The model computed no numbers to choose a token by."""

    code = "logits_not_finite"

    def __init__(self) -> None:
        super().__init__(
            "The engine stopped this generation: the model's logits are not finite numbers.",
            hint=DAMAGED,
        )


class DeadlineExceeded(RidgelineError):
    """The time that was allowed for an answer is over."""

    http_status = 504
    code = "deadline_exceeded"


class ReaderTooSlow(GenerationFailed):
    """A stream's reader fell so far behind that its generation was ended."""

    code = "reader_too_slow"


class InvalidSetting(InvalidInput):
    """A variable of the container environment, or a line of serving.properties, is wrong."""

    code = "InvalidSetting"


class LoadFailed(InternalError):
    """The model directory cannot be served: a file is missing or says something unusable."""

    code = "LoadFailed"


class ErrorStyle(Enum):
    """Whose client will read the error."""

    OPENAI = "openai"
    DJL = "djl"
    TGI = "tgi"


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """One error, ready for any of the styles. ``unserved``: the request was not begun."""

    status: int
    message: str
    code: str
    param: str | None
    retry_after_s: int | None
    unserved: bool = False

    def body(self, style: ErrorStyle) -> dict[str, object]:
        if style is ErrorStyle.DJL:
            return {"error": self.message, "code": self.status}
        if style is ErrorStyle.TGI:
            return {"error": self.message, "error_type": _tgi_type(self.status)}
        return {
            "error": {
                "message": self.message,
                "type": _openai_type(self.status),
                "param": self.param,
                "code": self.code,
            }
        }


def failure_of(output: EngineOutput) -> RidgelineError | None:
    """What the client is told when the engine gave its sequence up; None if it did not."""
    if output.finish_reason is FinishReason.TIMEOUT:
        return DeadlineExceeded(
            "The deadline of this request passed before its answer was complete.",
            hint="Ask for fewer tokens, or allow more time.",
        )
    if output.finish_reason not in (FinishReason.ERROR, FinishReason.CANCELLED):
        return None
    why = (output.error or str(output.finish_reason)).rstrip(".")
    if output.failure is Failure.GRAMMAR:
        return GrammarTooComplex(why)
    if output.failure is Failure.LOGITS:
        return LogitsNotFinite()
    return GenerationFailed(f"The engine stopped this generation: {why}.", hint="Try again.")


def answer_for(error: RidgelineError | BackendError) -> ErrorAnswer:
    """What a client is told about a typed error."""
    message = f"{error.message} {error.hint}".strip()
    code, param, retry = error.code, getattr(error, "param", None), None
    if isinstance(error, (QueueFull, Overloaded)):
        retry = max(1, math.ceil(error.retry_after_s))
        code = "engine_overloaded"
    elif isinstance(error, NotReady):
        retry = 1
    elif isinstance(error, PromptTooLong):
        code, param = "context_length_exceeded", "prompt"
    elif isinstance(error, InvalidSampling):
        code, param = "invalid_value", error.field
    unserved = isinstance(error, NotReady)
    return ErrorAnswer(error.http_status, message, code, param, retry, unserved)


def internal_answer() -> ErrorAnswer:
    """For a bug of ours: the traceback goes to the log, never to the client."""
    return ErrorAnswer(
        500, "The model server failed; its log has the cause.", "internal_error", None, None
    )


def _openai_type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 404:
        return "not_found_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _tgi_type(status: int) -> str:
    if status == 429:
        return "overloaded"
    return "validation" if status < 500 else "generation"
