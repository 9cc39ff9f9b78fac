"""Errors of the AWS-shaped borders: the codes and statuses that unmodified AWS clients match on.

Control and gateway raise these; ``api`` and ``gateway`` serialise them per protocol. ``hint`` is
appended to the message, because AWS clients show nothing else.
"""

from __future__ import annotations

import errno
import sqlite3

from ridgeline.errors import RidgelineError


class AwsError(RidgelineError):
    """Base: ``code`` is AWS's error code, ``http_status`` what AWS answers with."""

    code = "InternalFailure"
    http_status = 500


class ValidationException(AwsError):
    """SageMaker's answer to bad input and to an unknown resource of most kinds."""

    code = "ValidationException"
    http_status = 400


class ResourceNotFound(AwsError):
    code = "ResourceNotFound"
    http_status = 400


class ResourceInUse(AwsError):
    """The name is taken, or the state of the resource does not allow the call."""

    code = "ResourceInUse"
    http_status = 400


class ResourceLimitExceeded(AwsError):
    code = "ResourceLimitExceeded"
    http_status = 400


class UnknownOperation(AwsError):
    """An operation that we do not have: names it and says what is supported."""

    code = "UnknownOperationException"
    http_status = 400


class AccessDeniedException(AwsError):
    """No signature, a wrong one, or one by a key that is not ours. ``code`` varies by fault."""

    code = "AccessDeniedException"
    http_status = 403


class ModelError(AwsError):
    """The model's container answered with an error (HTTP 424)."""

    code = "ModelError"
    http_status = 424

    def __init__(
        self, message: str, *, original_status: int, original_message: str, log_stream_arn: str
    ) -> None:
        super().__init__(message)
        self.original_status = original_status
        self.original_message = original_message
        self.log_stream_arn = log_stream_arn


class ThrottlingException(AwsError):
    """A queue is full. ``retry_after_s`` goes out as Retry-After, in whole seconds, at least 1."""

    code = "ThrottlingException"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServiceUnavailable(AwsError):
    code = "ServiceUnavailable"
    http_status = 503


def disk_full(error: BaseException, place: str = "the data directory") -> ServiceUnavailable | None:
    """What to tell of an error that a full disk is the cause of; None for any other."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    else:
        full = (
            isinstance(error, sqlite3.Error)
            and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        )
    if not full:
        return None
    return ServiceUnavailable(f"No space left on device: free some in {place}, then try again.")


class InternalFailure(AwsError):
    """A bug of ours. The message never holds a traceback."""

    code = "InternalFailure"
    http_status = 500
