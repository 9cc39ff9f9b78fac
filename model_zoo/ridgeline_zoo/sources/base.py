"""What every source is: something that puts the files of one model into a folder, verified.

Knows no scheme by name (``registry``) and not what the files are turned into (``convert``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ridgeline_zoo.card import Json
from ridgeline_zoo.hashes import HashBook
from ridgeline_zoo.progress import Progress, silent


class S3Client(Protocol):
    """The two calls of a boto3 S3 client that the s3 source makes."""

    def list_objects_v2(self, **request: Any) -> dict[str, Any]: ...

    def get_object(self, **request: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class FetchRequest:
    """One model to fetch.

    ``location`` is the source without its scheme; ``cache_dir`` holds partial and whole downloads
    between calls; ``environment`` is where endpoints and tokens are read from.
    """

    location: str
    revision: str
    into: Path
    cache_dir: Path
    hashes: HashBook
    config: Mapping[str, Json] = field(default_factory=dict)
    eula: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = silent
    s3_client: S3Client | None = None


class Source(ABC):
    """One scheme."""

    @abstractmethod
    def fetch(self, request: FetchRequest) -> None:
        """Put the model's files into ``request.into`` (exists, empty), each checked by its hash.

        Raises the errors of ``ridgeline_zoo.errors``: BadSource, SourceNotFound,
        SourceUnavailable, GatedModel, UnsafeFile, HashMismatch.
        """
