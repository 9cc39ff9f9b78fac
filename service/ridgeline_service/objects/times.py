"""Epoch seconds as the aware datetime that nanio's XML builders take."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
