"""Why a job ended as it did: one word for the machine, and what its user reads.

The runner finds most causes, the control plane some; both use these.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Cause(StrEnum):
    NONE = ""
    STOP_REQUESTED = "StopRequested"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"
    INTERRUPTED = "Interrupted"
    DATA_INVALID = "DataInvalid"
    DATA_UNREACHABLE = "DataUnreachable"
    CODE_INVALID = "CodeInvalid"
    ENVIRONMENT_FAILED = "EnvironmentFailed"
    SCRIPT_FAILED = "ScriptFailed"
    RECORD_INVALID = "RecordInvalid"
    MODEL_FAILED = "ModelFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    UPLOAD_FAILED = "UploadFailed"
    LAUNCH_FAILED = "LaunchFailed"
    RUNNER_DIED = "RunnerDied"
    INTERNAL = "InternalError"

    @property
    def blames(self) -> str:
        """SageMaker's word for whose fault it is, with which every FailureReason begins."""
        return _BLAMES.get(self, "InternalServerError")

    @property
    def retried(self) -> bool:
        """Whether a RetryStrategy covers it: it was not the user's code or data."""
        return self.blames == "InternalServerError"

    @property
    def hint(self) -> str:
        """What to do about it; empty where only the message can tell."""
        return _HINTS.get(self, "")


_BLAMES = {
    Cause.NONE: "",
    Cause.STOP_REQUESTED: "",
    Cause.MAX_RUNTIME: "",
    Cause.MAX_WAIT: "",
    Cause.DATA_INVALID: "ClientError",
    Cause.CODE_INVALID: "ClientError",
    Cause.ENVIRONMENT_FAILED: "ClientError",
    Cause.SCRIPT_FAILED: "AlgorithmError",
    Cause.RECORD_INVALID: "ClientError",
    Cause.MODEL_FAILED: "AlgorithmError",
    Cause.OUT_OF_MEMORY: "AlgorithmError",
    Cause.DISK_FULL: "AlgorithmError",
    Cause.UPLOAD_FAILED: "ClientError",
}

_HINTS = {
    Cause.DATA_UNREACHABLE: "Start the job again once the object store answers.",
    Cause.ENVIRONMENT_FAILED: (
        "Check requirements.txt, and that the package index can be reached from here."
    ),
    Cause.OUT_OF_MEMORY: (
        "Choose a larger instance type, a smaller batch, or raise RIDGELINE_MEMORY_MB in the "
        "job's Environment where that set the limit."
    ),
    Cause.DISK_FULL: ("Raise VolumeSizeInGB, free space on the service's disk, or write less."),
    Cause.LAUNCH_FAILED: "`ridgeline doctor` shows what this machine lacks.",
    Cause.RUNNER_DIED: (
        "Start the job again; with a RetryStrategy or a CheckpointConfig it restarts by itself."
    ),
}


class JobFailed(Exception):
    """The job cannot go on. ``message`` is a sentence; ``log`` what was said before, by the script
    or by a command; ``hint`` stands in for the cause's own."""

    def __init__(self, cause: Cause, message: str, log: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.log = tuple(log)
        self.hint = hint


class JobStopped(Exception):
    """Somebody asked for the end, or the time is over."""
