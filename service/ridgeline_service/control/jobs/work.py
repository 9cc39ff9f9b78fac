"""What a job keeps on disk between its attempts: the answers of a transform job, so that another
attempt goes on where the last one was killed. It goes when the job ends.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ridgeline_service.paths import DataDir


def work_folder(data_dir: DataDir, job_id: str) -> Path:
    return data_dir.job_work / job_id


def remove_work(data_dir: DataDir, job_id: str) -> None:
    """Idempotent; most jobs have none."""
    shutil.rmtree(work_folder(data_dir, job_id), ignore_errors=True)


def work_folders(data_dir: DataDir) -> set[str]:
    """Ids of the jobs that have one."""
    return {folder.name for folder in data_dir.job_work.glob("*")}
