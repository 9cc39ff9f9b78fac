"""Requests whose answer is an object in S3: the settings of such endpoints, and the wait.

Knows S3 and the two places an answer may come to (output and failure); which endpoint was asked is
the predictor's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline._translate import model_error
from ridgeline.errors import InvalidInput, InvocationFailed, NotFound, NotReady

if TYPE_CHECKING:
    from ridgeline.session import Session


@dataclass(frozen=True)
class AsyncInferenceConfig:
    """Where answers go (a prefix of the default bucket unless named) and how many at once."""

    output_path: str | None = None
    max_concurrent_invocations_per_instance: int | None = None
    kms_key_id: str | None = None
    notification_config: Mapping[str, str] | None = None
    failure_path: str | None = None

    def request(self, default_output: str, default_failure: str) -> dict[str, Any]:
        """The member AsyncInferenceConfig of CreateEndpointConfig."""
        output: dict[str, Any] = {
            "S3OutputPath": self.output_path or default_output,
            "S3FailurePath": self.failure_path or default_failure,
        }
        if self.kms_key_id:
            output["KmsKeyId"] = self.kms_key_id
        if self.notification_config:
            output["NotificationConfig"] = dict(self.notification_config)
        request: dict[str, Any] = {"OutputConfig": output}
        if self.max_concurrent_invocations_per_instance is not None:
            request["ClientConfig"] = {
                "MaxConcurrentInvocationsPerInstance": self.max_concurrent_invocations_per_instance
            }
        return request


@dataclass(frozen=True)
class WaiterConfig:
    """How often to look (``max_attempts``), and how many seconds lie between (``delay``)."""

    max_attempts: int = 900
    delay: float = 1.0


class AsyncResult:
    """An answer that is on its way.

    ``output_path`` and ``failure_path`` are the S3 URIs it comes to, one or the other.
    """

    def __init__(
        self,
        session: Session,
        output_path: str,
        failure_path: str | None,
        inference_id: str,
        read: Callable[[bytes, str], Any],
    ) -> None:
        self.output_path = output_path
        self.failure_path = failure_path
        self.inference_id = inference_id
        self._session = session
        self._read = read
        self._answer: tuple[bytes, str] | None = None

    def __repr__(self) -> str:
        return f"AsyncResult({self.output_path})"

    def ready(self) -> bool:
        """Whether the answer is there. Raises InvocationFailed if it is a failure."""
        if self._answer is None:
            self._answer = self._get(self.output_path)
        if self._answer is None and self.failure_path:
            failure = self._get(self.failure_path)
            if failure is not None:
                raise _failure(failure[0], self.failure_path)
        return self._answer is not None

    def wait(self, waiter_config: WaiterConfig | None = None) -> None:
        """Wait for the answer; 15 minutes, a look a second, unless configured.

        Raises NotReady if it does not come in that time, InvocationFailed if the model failed.
        """
        config = waiter_config or WaiterConfig()
        for attempt in range(config.max_attempts):
            if attempt:
                self._session.clock.sleep(config.delay)
            if self.ready():
                return
        raise NotReady(
            f"No answer at {self.output_path} after {config.max_attempts} looks.",
            hint="It may still come: call get_result() again.",
        )

    def get_result(self, waiter_config: WaiterConfig | None = None) -> Any:
        """Wait for the answer and read it with the predictor's deserializer."""
        self.wait(waiter_config)
        if self._answer is None:
            raise NotReady(f"No answer at {self.output_path} yet.")
        return self._read(*self._answer)

    def _get(self, uri: str) -> tuple[bytes, str] | None:
        bucket, key = split_s3(uri)
        try:
            with self._session.call():
                answer = self._session.s3_client.get_object(Bucket=bucket, Key=key)
                return answer["Body"].read(), str(answer.get("ContentType", ""))
        except NotFound:
            return None


def _failure(body: bytes, uri: str) -> InvocationFailed:
    """What the failure's object says; the service writes JSON there, other services plain text."""
    text = body.decode(errors="replace")
    try:
        members = json.loads(text)
    except ValueError:
        members = None
    where = f"The whole of it is kept at {uri}."
    if isinstance(members, dict) and members.get("OriginalMessage"):
        error = model_error(members)
        return InvocationFailed(error.message, original_status=error.original_status, hint=where)
    if isinstance(members, dict):
        text = str(members.get("Message") or text)
    return InvocationFailed(f"The request failed: {text}", hint=where)


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI. Raises InvalidInput for anything else."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise InvalidInput(f"{uri!r} is no S3 URI.", hint="It looks like s3://bucket/key.")
    return bucket, key
