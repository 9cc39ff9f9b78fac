"""One processing job as the client sees it."""

from __future__ import annotations

from ridgeline._job import Job
from ridgeline.errors import ProcessingFailed


class ProcessingJob(Job):
    """A processing job of this name. Nothing is asked of the service before the first call."""

    member = "ProcessingJob"
    words = "processing job"
    failed = ProcessingFailed

    def output(self, name: str) -> str:
        """Where an output lies. Raises KeyError if the job has none of that name."""
        outputs = (self.describe().get("ProcessingOutputConfig") or {}).get("Outputs") or ()
        places = {item["OutputName"]: item["S3Output"]["S3Uri"] for item in outputs}
        return str(places[name])
