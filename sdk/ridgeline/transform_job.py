"""One transform job as the client sees it."""

from __future__ import annotations

from ridgeline._job import Job
from ridgeline.errors import TransformFailed


class TransformJob(Job):
    """A transform job of this name. Nothing is asked of the service before the first call."""

    member = "TransformJob"
    words = "transform job"
    failed = TransformFailed
