"""What a training job reads: channels of S3 data, or local files that are uploaded first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ridgeline.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from ridgeline.session import Session

DEFAULT_CHANNEL = "training"


class TrainingInput:
    """One channel's data; names and arguments as in SageMaker's SDK. ``s3_data`` may be a local
    path too, which is uploaded when the job is created."""

    def __init__(
        self,
        s3_data: str | os.PathLike[str],
        distribution: str | None = None,
        compression: str | None = None,
        content_type: str | None = None,
        record_wrapping: str | None = None,
        s3_data_type: str = "S3Prefix",
        input_mode: str | None = None,
    ) -> None:
        self.s3_data = s3_data
        self.distribution = distribution
        self.compression = compression
        self.content_type = content_type
        self.record_wrapping = record_wrapping
        self.s3_data_type = s3_data_type
        self.input_mode = input_mode

    def request(self, name: str, uri: str) -> dict[str, Any]:
        """The channel of CreateTrainingJob, with its data at ``uri``."""
        source = {
            "S3DataType": self.s3_data_type,
            "S3Uri": uri,
            "S3DataDistributionType": self.distribution or "FullyReplicated",
        }
        channel: dict[str, Any] = {"ChannelName": name, "DataSource": {"S3DataSource": source}}
        optional = {
            "CompressionType": self.compression,
            "ContentType": self.content_type,
            "RecordWrapperType": self.record_wrapping,
            "InputMode": self.input_mode,
        }
        channel.update((key, value) for key, value in optional.items() if value is not None)
        return channel


Input: TypeAlias = str | os.PathLike[str] | TrainingInput
Inputs: TypeAlias = Input | Mapping[str, Input] | None


def channels(session: Session, job: str, inputs: Inputs) -> list[dict[str, Any]]:
    """The channels of a job; what is local is uploaded. A single input is the channel
    ``training``. Raises NotFound for a path that is not there."""
    if inputs is None:
        return []
    named = inputs if isinstance(inputs, Mapping) else {DEFAULT_CHANNEL: inputs}
    found = []
    for name, value in named.items():
        given = value if isinstance(value, TrainingInput) else TrainingInput(value)
        uri = uploaded(session, given.s3_data, f"Channel {name!r}", f"{job}/input/{name}")
        found.append(given.request(name, uri))
    return found


def uploaded(session: Session, data: str | os.PathLike[str], who: str, key_prefix: str) -> str:
    """The S3 URI of what lies there already, or is uploaded from a local path; ``who`` wants it.
    Raises NotFound and InvalidInput."""
    given = os.fspath(data)
    if given.startswith("s3://"):
        return given
    if "://" in given and not given.startswith("file://"):
        raise InvalidInput(
            f"{who}: {given!r} is neither an S3 URI nor a local path.",
            hint="Like s3://bucket/prefix, or ./data.",
        )
    path = Path(given.removeprefix("file://"))
    if not path.exists():
        raise NotFound(f"{who}: {str(path)!r} does not exist.")
    return session.upload_data(path, key_prefix=key_prefix)
