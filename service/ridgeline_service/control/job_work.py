"""What a job keeps on disk between its attempts: the answers of a transform job, so that another
attempt goes on where the last one was killed. It goes when the job ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path

from ridgeline_service.paths import DataDir


def work_folder(data_dir: DataDir, job_id: str) -> Path:
    return data_dir.job_work / job_id


def remove_work(data_dir: DataDir, job_id: str) -> None:
    """Idempotent; most jobs have none."""
    shutil.rmtree(work_folder(data_dir, job_id), ignore_errors=True)


def remove_work_but_of(data_dir: DataDir, living: Container[str]) -> None:
    """What jobs left whose control plane was killed between their end and this."""
    for folder in data_dir.job_work.glob("*"):
        if folder.name not in living:
            remove_work(data_dir, folder.name)
