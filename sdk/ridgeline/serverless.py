"""Endpoints that are billed by use: the settings, as in SageMaker's SDK."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerlessInferenceConfig:
    """Memory and the most requests at once; ``provisioned_concurrency`` are kept warm."""

    memory_size_in_mb: int = 2048
    max_concurrency: int = 5
    provisioned_concurrency: int | None = None

    def request(self) -> dict[str, int]:
        """The member ServerlessConfig of a variant."""
        members = {
            "MemorySizeInMB": self.memory_size_in_mb,
            "MaxConcurrency": self.max_concurrency,
        }
        if self.provisioned_concurrency is not None:
            members["ProvisionedConcurrency"] = self.provisioned_concurrency
        return members
