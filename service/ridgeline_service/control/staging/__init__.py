"""Staging: everything a replica needs before its process starts, on this machine's disk.

Public: ``Stager`` (the seam), ``DiskStager``, ``Staged``, ``StagingFailed``, ``StagingCancelled``.
"""

from __future__ import annotations

from ridgeline_service.control.staging.base import (
    ENVIRONMENT_STAGE,
    Report,
    Staged,
    Stager,
    StagingCancelled,
    StagingFailed,
)

__all__ = ["ENVIRONMENT_STAGE", "Report", "Staged", "Stager", "StagingCancelled", "StagingFailed"]
