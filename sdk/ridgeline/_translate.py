"""From what botocore raises to the tree of ``ridgeline.errors``.

The service and AWS answer with codes; this is the one place that knows them. A code that nobody
mapped falls back to the HTTP status, so a new code of the service never becomes a bare exception.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as aws
from urllib3.exceptions import HTTPError

from ridgeline.errors import (
    AccessDenied,
    AlreadyExists,
    InternalError,
    InvalidInput,
    InvocationFailed,
    NotFound,
    NotReady,
    NotRunning,
    Overloaded,
    RidgelineError,
    Unavailable,
    Unsupported,
)

_BY_CODE: dict[str, type[RidgelineError]] = {
    **{
        cls.code: cls
        for cls in (
            AccessDenied,
            AlreadyExists,
            InvalidInput,
            NotFound,
            NotReady,
            Unavailable,
            Unsupported,
        )
    },
    "AccessDeniedException": AccessDenied,
    "BadDigest": AccessDenied,
    "ExpiredToken": AccessDenied,
    "ExpiredTokenException": AccessDenied,
    "IncompleteSignature": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "InvalidClientTokenId": AccessDenied,
    "InvalidSignatureException": AccessDenied,
    "MissingAuthenticationToken": AccessDenied,
    "MissingAuthenticationTokenException": AccessDenied,
    "RequestExpired": AccessDenied,
    "RequestTimeTooSkewed": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "UnrecognizedClientException": AccessDenied,
    "BucketAlreadyExists": AlreadyExists,
    "BucketAlreadyOwnedByYou": AlreadyExists,
    "ConflictException": NotReady,
    "ResourceInUse": NotReady,
    "NoSuchBucket": NotFound,
    "NoSuchKey": NotFound,
    "ObjectNotFoundException": NotFound,
    "ResourceNotFound": NotFound,
    "ResourceNotFoundException": NotFound,
    "UnknownModel": NotFound,
    "ResourceLimitExceeded": Unsupported,
    "UnknownOperationException": Unsupported,
    "ValidationError": InvalidInput,
    "ValidationException": InvalidInput,
    "ServiceUnavailable": Unavailable,
    "ServiceUnavailableException": Unavailable,
    "InternalDependencyException": Unavailable,
    "InternalFailure": InternalError,
}
_BY_STATUS: dict[int, type[RidgelineError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: NotReady,
    422: InvalidInput,
    424: InvocationFailed,
    503: Unavailable,
}
_THROTTLED = {"Overloaded", "Throttling", "ThrottlingException", "TooManyRequestsException"}
_MODEL_FAILED = {"InvocationFailed", "ModelError", "ModelStreamError", "InternalStreamFailure"}

# SageMaker has one code for "wrong value", "no such thing" and "name taken": only words differ.
_ABSENT = re.compile(r"could not find|does not exist|not found", re.IGNORECASE)
_TAKEN = re.compile(r"already exist", re.IGNORECASE)
_LOG_STREAM = re.compile(r"/aws/sagemaker/Endpoints/([^:]+):")
_INFERENCE = "/invocations"
_BUSY = re.compile(
    r"cannot (update|delete) in-progress|in status|its status is|while it is|is not InService",
    re.IGNORECASE,
)


def error_from(
    code: str,
    message: str,
    http_status: int = 0,
    *,
    hint: str = "",
    retry_after_s: float | None = None,
) -> RidgelineError:
    """The error that this code, from the service or from AWS, stands for."""
    if code in _THROTTLED or http_status == 429:
        return Overloaded(message, retry_after_s=retry_after_s or 1.0, hint=hint)
    if code in _MODEL_FAILED or (http_status == 424 and code not in _BY_CODE):
        return InvocationFailed(message, hint=hint)
    cls = _BY_CODE.get(code)
    if code in ("ValidationException", "ValidationError", "ResourceInUse"):
        if _TAKEN.search(message):
            cls = AlreadyExists
        elif _ABSENT.search(message):
            cls = NotFound
        elif _BUSY.search(message):
            cls = NotReady
    if cls is None:
        cls = _BY_STATUS.get(http_status, InternalError)
    return cls(message, hint=hint)


def from_client_error(error: aws.ClientError) -> RidgelineError:
    """The same for an error that botocore parsed."""
    body: Mapping[str, object] = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0) or 0)
    message = str(body.get("Message") or error.response.get("Message") or error)
    if error.response.get("OriginalMessage"):
        return model_error(error.response)
    return error_from(
        str(body.get("Code", "")),
        message,
        status,
        retry_after_s=retry_after(meta.get("HTTPHeaders", {})),
    )


def model_error(body: Mapping[str, Any]) -> InvocationFailed:
    """A ModelError in the model's own words, without what SageMaker wraps around them."""
    status = int(body.get("OriginalStatusCode") or 500)
    words = _words_of(str(body.get("OriginalMessage") or body.get("Message") or ""))
    stream = _LOG_STREAM.search(str(body.get("LogStreamArn", "")))
    return InvocationFailed(
        f"The model answered with HTTP status {status}: {words}",
        original_status=status,
        hint=f"Its log: `ridgeline logs {stream.group(1)}`." if stream and status >= 500 else "",
    )


def _words_of(answer: str) -> str:
    """The message within a JSON error of any of the usual shapes; else the answer itself."""
    try:
        body = json.loads(answer)
    except ValueError:
        return answer
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "detail") if name in body), None)
    return body if isinstance(body, str) and body else answer


def retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds, if there is one that we can read."""
    for name, value in headers.items():
        if name.lower() == "retry-after":
            try:
                return float(value)
            except ValueError:
                return None
    return None


@contextmanager
def translated(url: str, *, start_hint: str = "", silent_hint: str = "") -> Iterator[None]:
    """Run a call to ``url``; what botocore raises leaves as one of our errors.

    ``silent_hint`` says where to look if the service took the call and did not answer.
    """
    try:
        yield
    except aws.ClientError as error:
        raise from_client_error(error) from error
    except (
        aws.EndpointConnectionError,
        aws.ConnectTimeoutError,
        aws.ProxyConnectionError,
    ) as error:
        raise NotRunning(f"No service answers at {url}.", hint=start_hint) from error
    except aws.SSLError as error:
        raise Unavailable(f"TLS to {url} failed: {error}") from error
    except aws.ReadTimeoutError as error:
        if _INFERENCE in str(error.kwargs.get("endpoint_url", "")):
            raise Unavailable(
                "The model did not answer in time.",
                hint="Ask `ridgeline describe` for the state of its endpoint.",
            ) from error
        raise Unavailable(f"{url} did not answer in time.", hint=silent_hint) from error
    except (aws.HTTPClientError, HTTPError) as error:
        raise Unavailable(
            f"The connection to {url} broke: {error}", hint="Trying again helps."
        ) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise AccessDenied(str(error), hint="Give the boto3 session credentials.") from error
    except aws.ParamValidationError as error:
        raise InvalidInput(str(error)) from error
    except aws.BotoCoreError as error:
        raise InvalidInput(str(error)) from error
