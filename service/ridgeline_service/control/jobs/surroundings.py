"""What the orders of all kinds of jobs take from the service, and where their logs go."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store.job_records import JobKind

LOG_GROUPS = {
    JobKind.TRAINING: "/aws/sagemaker/TrainingJobs",
    JobKind.PROCESSING: "/aws/sagemaker/ProcessingJobs",
    JobKind.TRANSFORM: "/aws/sagemaker/TransformJobs",
}


@dataclass(frozen=True)
class Surroundings:
    """What orders take from the service."""

    data_dir: DataDir
    settings: Settings
    cores: int
