"""One training job as the client sees it."""

from __future__ import annotations

from ridgeline._job import Job
from ridgeline.errors import NotReady, TrainingFailed


class TrainingJob(Job):
    """A training job of this name. Nothing is asked of the service before the first call."""

    member = "TrainingJob"
    words = "training job"
    failed = TrainingFailed

    @property
    def model_data(self) -> str:
        """Where its model lies. Raises NotReady before it is there."""
        found = self.describe()
        uri = (found.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
        if not uri:
            raise NotReady(
                f"{self.title} has no model: it is {found['TrainingJobStatus']}.",
                hint=f"See `ridgeline describe {self.name}`.",
            )
        return str(uri)
