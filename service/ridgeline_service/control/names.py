"""ARNs, times and ids of the control plane."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Seconds since the epoch."""

Ids = Callable[[], str]
"""A new id at each call: lower-case letters and digits, 12 or more."""


def random_id() -> str:
    return secrets.token_hex(6)


def system_clock() -> float:
    return time.time()


@dataclass(frozen=True)
class Arns:
    """ARNs of one account and region. The resource part is lower-case, as SageMaker makes it."""

    region: str
    account_id: str

    def of(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account_id}:{kind}/{name.lower()}"


MODEL = "model"
ENDPOINT_CONFIG = "endpoint-config"
ENDPOINT = "endpoint"
TUNING_JOB = "hyper-parameter-tuning-job"


def to_micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


def to_datetime(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def micros_of(value: object) -> int | None:
    """Microseconds of a timestamp as a request holds it: a datetime or seconds since the epoch."""
    if value is None:
        return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return to_micros(aware.timestamp())
    if isinstance(value, int | float):
        return to_micros(value)
    raise TypeError(f"a timestamp of type {type(value).__name__} passed validation")


def log_group(endpoint_name: str) -> str:
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"


def log_stream(variant: str, replica_id: str) -> str:
    return f"{variant}/{replica_id}"
