"""States and reasons: the words of the state machines, in one place.

A status says where a thing is; a reason says who or what brought it there, whether trying again
can help, and what the user reads. Knows nothing of how a state is reached.
"""

from __future__ import annotations

from enum import StrEnum


class EndpointStatus(StrEnum):
    """SageMaker's own words."""

    CREATING = "Creating"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    IN_SERVICE = "InService"
    DELETING = "Deleting"
    FAILED = "Failed"


class ReplicaStatus(StrEnum):
    """The life of a replica, in this order; ``STOPPED`` and ``FAILED`` are its two ends."""

    PENDING = "pending"
    STAGING = "staging"
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (ReplicaStatus.STOPPED, ReplicaStatus.FAILED)

    @property
    def admitted(self) -> bool:
        """It counts against the machine: from staging on, until its process is gone."""
        return self is not ReplicaStatus.PENDING and not self.ended

    @property
    def launched(self) -> bool:
        """Its process was started and it has not answered ready yet."""
        return self in (ReplicaStatus.STARTING, ReplicaStatus.LOADING, ReplicaStatus.WARMING)


class Desired(StrEnum):
    """What a row should become. Written by verbs and by the endpoint's reconciler alone."""

    RUNNING = "running"
    STOPPED = "stopped"


class Reason(StrEnum):
    """Why something is in its state. ``words`` is what a user reads, ``retried`` what we do."""

    NONE = ""
    REQUESTED = "Requested"
    WAITING_FOR_INSTANCES = "WaitingForInstances"
    WAITING_FOR_MEMORY = "WaitingForMemory"
    ADMISSION_TIMEOUT = "AdmissionTimeout"
    MODEL_DATA_INVALID = "ModelDataInvalid"
    DOWNLOAD_FAILED = "DownloadFailed"
    DOWNLOAD_TIMEOUT = "DownloadTimeout"
    PREPARE_FAILED = "PrepareFailed"
    ENVIRONMENT_FAILED = "EnvironmentFailed"
    LAUNCH_FAILED = "LaunchFailed"
    LOAD_FAILED = "LoadFailed"
    STARTUP_TIMEOUT = "StartupTimeout"
    PROCESS_DIED = "ProcessDied"
    HUNG = "Hung"
    CRASH_LOOP = "CrashLoop"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
    SCALED_IN = "ScaledIn"
    ENDPOINT_DELETED = "EndpointDeleted"

    @property
    def retried(self) -> bool:
        """Whether a new replica may fare better than the one that failed for this reason."""
        return self in _RETRIED

    @property
    def words(self) -> str:
        return _WORDS.get(self, "")


_RETRIED = frozenset(
    {
        Reason.DOWNLOAD_FAILED,
        Reason.ENVIRONMENT_FAILED,
        Reason.LAUNCH_FAILED,
        Reason.PROCESS_DIED,
        Reason.HUNG,
    }
)

_WORDS = {
    Reason.WAITING_FOR_INSTANCES: "Waiting for a running instance to end.",
    Reason.WAITING_FOR_MEMORY: "Waiting for memory.",
    Reason.ADMISSION_TIMEOUT: "There was no room on this machine in time.",
    Reason.MODEL_DATA_INVALID: "The model data cannot be used.",
    Reason.DOWNLOAD_FAILED: "The model data could not be downloaded.",
    Reason.DOWNLOAD_TIMEOUT: (
        "The model data was not there in time. Raise ModelDataDownloadTimeoutInSeconds."
    ),
    Reason.PREPARE_FAILED: "The model could not be prepared.",
    Reason.ENVIRONMENT_FAILED: "The environment of the image could not be installed.",
    Reason.LAUNCH_FAILED: "The model server could not be started.",
    Reason.LOAD_FAILED: "The model server could not load the model.",
    Reason.STARTUP_TIMEOUT: (
        "The primary container did not pass the ping health check in time. "
        "Check its log, or raise ContainerStartupHealthCheckTimeoutInSeconds."
    ),
    Reason.PROCESS_DIED: "The model server ended by itself.",
    Reason.HUNG: "The model server stopped answering.",
    Reason.CRASH_LOOP: "The model server failed again and again.",
    Reason.ROLLED_BACK: "The update failed; the former deployment serves on.",
    Reason.SUPERSEDED: "A newer deployment took over.",
    Reason.SCALED_IN: "The variant was scaled in.",
    Reason.ENDPOINT_DELETED: "The endpoint was deleted.",
}
