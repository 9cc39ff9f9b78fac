"""From a Python value to the body of a request; names as in SageMaker's SDK.

numpy arrays are accepted where SageMaker's accept them, by what they can do (``tolist``), so that
numpy is needed only by those who use it.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from ridgeline.errors import InvalidInput


class BaseSerializer(ABC):
    """Turns data into bytes of ``CONTENT_TYPE``."""

    CONTENT_TYPE: str = "application/octet-stream"

    def __init__(self, content_type: str | None = None) -> None:
        self.content_type = content_type or self.CONTENT_TYPE

    @abstractmethod
    def serialize(self, data: Any) -> bytes:
        """The body. Raises InvalidInput if this value cannot be written in this format."""


class JSONSerializer(BaseSerializer):
    """Anything JSON can hold, and arrays."""

    CONTENT_TYPE = "application/json"

    def serialize(self, data: Any) -> bytes:
        return _json(data).encode()


class JSONLinesSerializer(BaseSerializer):
    """One JSON value a line, from an iterable; a string is taken as written."""

    CONTENT_TYPE = "application/jsonlines"

    def serialize(self, data: Any) -> bytes:
        if isinstance(data, str):
            return data.encode()
        if isinstance(data, bytes):
            return data
        if isinstance(data, Mapping) or not isinstance(data, Iterable):
            raise InvalidInput(
                f"JSONLinesSerializer takes an iterable of values, not {type(data).__name__}."
            )
        return "\n".join(_json(item) for item in data).encode()


class CSVSerializer(BaseSerializer):
    """Rows of values, one row of values, or a table; a string is taken as written."""

    CONTENT_TYPE = "text/csv"

    def serialize(self, data: Any) -> bytes:
        data = _plain(data)
        if isinstance(data, str):
            return data.encode()
        if isinstance(data, bytes):
            return data
        if isinstance(data, Mapping) or not isinstance(data, Iterable):
            raise InvalidInput(f"CSVSerializer takes rows of values, not {type(data).__name__}.")
        rows = [_plain(row) for row in data]
        if not any(isinstance(row, (list, tuple)) for row in rows):
            rows = [rows]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for row in rows:
            writer.writerow(row if isinstance(row, (list, tuple)) else [row])
        return out.getvalue().rstrip("\n").encode()


class StringSerializer(BaseSerializer):
    """Text as UTF-8."""

    CONTENT_TYPE = "text/plain"

    def serialize(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else str(data).encode()


class IdentitySerializer(BaseSerializer):
    """Bytes as they are; text as UTF-8; a file object is read."""

    def serialize(self, data: Any) -> bytes:
        if hasattr(data, "read"):
            data = data.read()
        if isinstance(data, str):
            return data.encode()
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        raise InvalidInput(
            f"IdentitySerializer takes bytes, text or a file, not {type(data).__name__}.",
            hint="JSONSerializer writes most other values.",
        )


class NumpySerializer(BaseSerializer):
    """An array in numpy's .npy format, without objects inside: those would need pickle."""

    CONTENT_TYPE = "application/x-npy"

    def __init__(self, dtype: Any = None, content_type: str | None = None) -> None:
        super().__init__(content_type)
        self.dtype = dtype

    def serialize(self, data: Any) -> bytes:
        from ridgeline._numpy import write_npy  # numpy: only for those who use it

        return write_npy(data, self.dtype)


def _plain(data: Any) -> Any:
    """An array or data frame as nested lists."""
    if hasattr(data, "to_numpy"):
        data = data.to_numpy()
    return data.tolist() if hasattr(data, "tolist") else data


def _json(data: Any) -> str:
    def fallback(value: Any) -> Any:
        if hasattr(value, "tolist") or hasattr(value, "to_numpy"):
            return _plain(value)
        raise InvalidInput(f"A value of type {type(value).__name__} cannot be written as JSON.")

    try:
        return json.dumps(data, default=fallback)
    except ValueError as error:
        raise InvalidInput(f"This value cannot be written as JSON: {error}") from None
