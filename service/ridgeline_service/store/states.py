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
    """Why something is in its state. ``words`` is what a user reads, ``next_step`` what they can
    do about it, ``retried`` what we do."""

    NONE = ""
    REQUESTED = "Requested"
    WAITING_FOR_INSTANCES = "WaitingForInstances"
    WAITING_FOR_MEMORY = "WaitingForMemory"
    ADMISSION_TIMEOUT = "AdmissionTimeout"
    MODEL_DATA_INVALID = "ModelDataInvalid"
    DOWNLOAD_FAILED = "DownloadFailed"
    DOWNLOAD_TIMEOUT = "DownloadTimeout"
    DISK_FULL = "DiskFull"
    PREPARE_FAILED = "PrepareFailed"
    ENVIRONMENT_FAILED = "EnvironmentFailed"
    LAUNCH_FAILED = "LaunchFailed"
    LOAD_FAILED = "LoadFailed"
    STARTUP_TIMEOUT = "StartupTimeout"
    PROCESS_DIED = "ProcessDied"
    OUT_OF_MEMORY = "OutOfMemory"
    HUNG = "Hung"
    DEVICE_FAILED = "DeviceFailed"
    CRASH_LOOP = "CrashLoop"
    UPDATE_TIMEOUT = "UpdateTimeout"
    ALARM = "Alarm"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
    SCALED_IN = "ScaledIn"
    ENDPOINT_DELETED = "EndpointDeleted"
    SERVICE_STOPPED = "ServiceStopped"

    @property
    def retried(self) -> bool:
        """Whether a new replica may fare better than the one that failed for this reason."""
        return self in _RETRIED

    @property
    def waits_for_room(self) -> bool:
        return self in (Reason.WAITING_FOR_INSTANCES, Reason.WAITING_FOR_MEMORY)

    @property
    def words(self) -> str:
        return _WORDS.get(self, "")

    def next_step(self, endpoint: str) -> str:
        """For the user of that endpoint; empty where there is nothing to do."""
        return _NEXT_STEPS.get(self, "").format(endpoint=endpoint)


_RETRIED = frozenset(
    {
        Reason.DOWNLOAD_FAILED,
        Reason.ENVIRONMENT_FAILED,
        Reason.LAUNCH_FAILED,
        Reason.PROCESS_DIED,
        Reason.HUNG,
        Reason.DEVICE_FAILED,
    }
)

_WORDS = {
    Reason.WAITING_FOR_INSTANCES: "Waiting for a running instance to end.",
    Reason.WAITING_FOR_MEMORY: "Waiting for memory.",
    Reason.ADMISSION_TIMEOUT: "There was no room on this machine in time.",
    Reason.MODEL_DATA_INVALID: "The model data cannot be used.",
    Reason.DOWNLOAD_FAILED: "The model data could not be downloaded.",
    Reason.DOWNLOAD_TIMEOUT: "The model data was not there in time.",
    Reason.DISK_FULL: "The service's disk is full.",
    Reason.PREPARE_FAILED: "The model could not be prepared.",
    Reason.ENVIRONMENT_FAILED: "Installing packages failed.",
    Reason.LAUNCH_FAILED: "The model server could not be started.",
    Reason.LOAD_FAILED: "The model server could not load the model.",
    Reason.STARTUP_TIMEOUT: "The primary container did not pass the ping health check in time.",
    Reason.PROCESS_DIED: "The model server ended by itself.",
    Reason.OUT_OF_MEMORY: "The model server ran out of memory.",
    Reason.HUNG: "The model server stopped answering.",
    Reason.DEVICE_FAILED: "The device of the model server failed.",
    Reason.CRASH_LOOP: "The model server failed again and again.",
    Reason.UPDATE_TIMEOUT: "The update was not done in time.",
    Reason.ALARM: "A rollback alarm of the update rings.",
    Reason.ROLLED_BACK: "The update failed; the former deployment serves on.",
    Reason.SUPERSEDED: "A newer deployment took over.",
    Reason.SCALED_IN: "The variant was scaled in.",
    Reason.ENDPOINT_DELETED: "The endpoint was deleted.",
    Reason.SERVICE_STOPPED: "The service was stopped.",
}

_NEXT_STEPS = {
    Reason.WAITING_FOR_INSTANCES: (
        "`ridgeline ls` and `ridgeline jobs` list what runs: end what is not needed, or raise "
        "max_instances in settings.json."
    ),
    Reason.WAITING_FOR_MEMORY: (
        "`ridgeline ls` and `ridgeline jobs` list what runs: end what is not needed, or declare "
        "less with RIDGELINE_MEMORY_MB."
    ),
    Reason.ADMISSION_TIMEOUT: "Make room for it, then ask for it again.",
    Reason.MODEL_DATA_INVALID: (
        "Put the data right in S3, or create the model with another location; then deploy again."
    ),
    Reason.DOWNLOAD_FAILED: "Check that the place it comes from can be reached, then deploy again.",
    Reason.DOWNLOAD_TIMEOUT: "Raise ModelDataDownloadTimeoutInSeconds in the endpoint config.",
    Reason.DISK_FULL: (
        "Free some of the disk that the data directory is on (`ridgeline doctor` names it), or of "
        "that of RIDGELINE_CACHE where it is set; then deploy again."
    ),
    Reason.PREPARE_FAILED: "Check HF_MODEL_ID; `ridgeline zoo ls` lists models that work.",
    Reason.ENVIRONMENT_FAILED: (
        "Check the model's requirements.txt and that the package index can be reached."
    ),
    Reason.LAUNCH_FAILED: "`ridgeline doctor` shows what this machine lacks.",
    Reason.LOAD_FAILED: (
        "Correct the model or its Environment; `ridgeline logs {endpoint}` has the whole log."
    ),
    Reason.STARTUP_TIMEOUT: (
        "See `ridgeline logs {endpoint}`; a model that is only slow needs a higher "
        "ContainerStartupHealthCheckTimeoutInSeconds in the endpoint config."
    ),
    Reason.PROCESS_DIED: "`ridgeline logs {endpoint}` has what it said before.",
    Reason.OUT_OF_MEMORY: (
        "Choose a larger instance type, or raise MemorySizeInMB or RIDGELINE_MEMORY_MB where that "
        "set the limit."
    ),
    Reason.HUNG: "`ridgeline logs {endpoint}` has what it said before.",
    Reason.DEVICE_FAILED: "`ridgeline logs {endpoint}` has what it said before.",
    Reason.CRASH_LOOP: (
        "`ridgeline logs {endpoint}` has the whole log; update the endpoint with what is corrected."
    ),
    Reason.UPDATE_TIMEOUT: (
        "Raise MaximumExecutionTimeoutInSeconds of the DeploymentConfig, then update again."
    ),
    Reason.ALARM: (
        "`aws cloudwatch describe-alarm-history` says what the alarm saw; correct the new endpoint "
        "config or its model, then update again."
    ),
    Reason.ROLLED_BACK: "Correct the new endpoint config or its model, then update again.",
}
