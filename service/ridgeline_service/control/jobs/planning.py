"""From a CreateTrainingJob request to what the job will be: resolved, and the impossible refused.

Everything that can be known before a process starts is refused here: unknown images, accelerators
that are not there, more than this machine has, requests that contradict themselves. Reads no S3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline_service.control.jobs.checking import DEFAULT_MAX_RUNTIME_S, check_training
from ridgeline_service.errors import ResourceLimitExceeded, ValidationException
from ridgeline_service.placement.machine import GIB, Machine, in_gib
from ridgeline_service.placement.profiles import InstanceType, instance_type
from ridgeline_service.runtime.images import Runtime, resolve_training
from ridgeline_service.settings import Settings
from ridgeline_service.store.job_records import JobSpec

MIB = 1 << 20
MEMORY_VARIABLE = "RIDGELINE_MEMORY_MB"
DEFAULT_MEMORY = 1 * GIB
DEFAULT_VOLUME_GIB = 30


@dataclass(frozen=True)
class Fit:
    """Instances that this machine can run. Bytes are of one: what it declares, and what one of its
    processes may use."""

    profile: InstanceType
    count: int
    memory_bytes: int
    limit_bytes: int
    warning: str


class JobPlanner:
    """Resolves requests against the images and this machine."""

    def __init__(
        self, settings: Settings, machine: Machine, sandbox_problem: Callable[[], str]
    ) -> None:
        """``sandbox_problem`` says why user code cannot be confined here, or nothing."""
        self._settings = settings
        self._machine = machine
        self._sandbox_problem = sandbox_problem

    def plan(self, request: Mapping[str, Any]) -> JobSpec:
        """Raises ValidationException or ResourceLimitExceeded for what can never run here."""
        algorithm = request.get("AlgorithmSpecification") or {}
        image = algorithm.get("TrainingImage")
        if not image:
            raise ValidationException(
                "AlgorithmSpecification names no TrainingImage; algorithms by name cannot run "
                "here. Give the URI of a training image."
            )
        runtime = self.runtime(image)
        check_training(request)
        resources = request.get("ResourceConfig") or {}
        stopping = request.get("StoppingCondition") or {}
        wait = stopping.get("MaxWaitTimeInSeconds")
        fit = self.fit(request, resources["InstanceType"], int(resources.get("InstanceCount", 1)))
        return JobSpec(
            runtime=runtime.name,
            instance_type=fit.profile.name,
            instance_count=fit.count,
            memory_bytes=fit.memory_bytes,
            memory_limit_bytes=fit.limit_bytes,
            volume_bytes=int(resources.get("VolumeSizeInGB", DEFAULT_VOLUME_GIB)) * GIB,
            max_runtime_s=float(stopping.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S)),
            max_wait_s=None if wait is None else float(wait),
            retries=int((request.get("RetryStrategy") or {}).get("MaximumRetryAttempts", 0)),
            warning=fit.warning,
        )

    def runtime(self, image: str) -> Runtime:
        """What runs an image's jobs. Raises ValidationException."""
        runtime = resolve_training(image)
        if self._sandbox_problem():
            raise ValidationException(
                "Jobs run user code, and this machine cannot give it an /opt/ml of its own "
                f"({self._sandbox_problem()}).",
                hint="Install bubblewrap, or allow user namespaces; see `ridgeline doctor`.",
            )
        return runtime

    def fit(self, request: Mapping[str, Any], type_name: str, count: int) -> Fit:
        """Whether this machine can run so many instances of what the request declares in its
        Environment. Raises ValidationException or ResourceLimitExceeded."""
        profile = instance_type(type_name)
        memory, limit = _memory(request, profile)
        self._check_room(count, memory, profile)
        return Fit(profile, count, memory, limit, self._warning(profile))

    def _check_room(self, count: int, memory: int, profile: InstanceType) -> None:
        limit, room = self._settings.max_instances, self._machine.memory_bytes
        if count > limit:
            raise ResourceLimitExceeded(
                f"The job needs {count} running instances; this service runs at most {limit}.",
                hint="Lower InstanceCount, or raise max_instances in settings.json.",
            )
        if count * memory > room:
            raise ResourceLimitExceeded(
                f"The job can never run here: {count} instances of {profile.name} need "
                f"{in_gib(count * memory)}, and this machine has {in_gib(room)} for them.",
                hint=f"Lower InstanceCount, or declare less with {MEMORY_VARIABLE}.",
            )

    def _warning(self, profile: InstanceType) -> str:
        """What the user should know of the accelerator. Raises for what is refused."""
        accelerator = profile.accelerator
        if accelerator is None:
            return ""
        here = self._machine.gpus
        if accelerator.kind == "gpu" and here:
            count = accelerator.count or 1
            words = f"{profile.name} has {count} {accelerator.name} and this machine {here} GPUs"
            return "" if count <= here else f"{words} - the job runs on those"
        if accelerator.kind == "neuron":
            raise ValidationException(
                f"{profile.name} has {accelerator.name} accelerators, on which jobs cannot train "
                "here.",
                hint="Choose a CPU type such as ml.m5.xlarge.",
            )
        if self._settings.strict_instance_types:
            raise ValidationException(
                f"{profile.name} has {accelerator.name} accelerators and this machine has none.",
                hint="Choose a CPU type, or turn strict_instance_types off in settings.json.",
            )
        return f"{profile.name} has no {accelerator.name} here - the job runs on the CPU"


def _memory(request: Mapping[str, Any], profile: InstanceType) -> tuple[int, int]:
    """What an instance declares, and what one of its processes may use."""
    given = (request.get("Environment") or {}).get(MEMORY_VARIABLE)
    if given is None:
        return min(DEFAULT_MEMORY, profile.memory_bytes), profile.memory_bytes
    if not given.isdigit() or int(given) < 1:
        raise ValidationException(f"{MEMORY_VARIABLE} is {given!r}; it is a number of MiB.")
    needed = int(given) * MIB
    if needed > profile.memory_bytes:
        raise ValidationException(
            f"The job declares {in_gib(needed)} and {profile.name} has "
            f"{in_gib(profile.memory_bytes)}.",
            hint=f"Choose an instance type with at least {in_gib(needed)}.",
        )
    return needed, needed
