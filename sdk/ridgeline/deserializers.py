"""From the body of an answer to a Python value; names as in SageMaker's SDK.

A deserializer is given the whole body and its content type, and names the types it accepts, which
are sent as ``Accept``.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from io import StringIO
from typing import Any

from ridgeline.errors import InvocationFailed


class BaseDeserializer(ABC):
    """Turns the bytes of an answer into a value. ``ACCEPT`` are the types it can read."""

    ACCEPT: tuple[str, ...] = ("*/*",)

    def __init__(self, accept: str | None = None) -> None:
        self.accept = (accept,) if accept else self.ACCEPT

    @abstractmethod
    def deserialize(self, data: bytes, content_type: str) -> Any:
        """The value. Raises InvocationFailed if the body is not what it says it is."""


class JSONDeserializer(BaseDeserializer):
    """One JSON value."""

    ACCEPT = ("application/json",)

    def deserialize(self, data: bytes, content_type: str) -> Any:
        return _parse(data, content_type)


class JSONLinesDeserializer(BaseDeserializer):
    """A list with the JSON value of each line; empty lines are skipped."""

    ACCEPT = ("application/jsonlines",)

    def deserialize(self, data: bytes, content_type: str) -> list[Any]:
        return [_parse(line, content_type) for line in data.splitlines() if line.strip()]


class CSVDeserializer(BaseDeserializer):
    """A list of rows, each a list of strings."""

    ACCEPT = ("text/csv",)

    def deserialize(self, data: bytes, content_type: str) -> list[list[str]]:
        return list(csv.reader(StringIO(data.decode(), newline="")))


class StringDeserializer(BaseDeserializer):
    """Text in ``encoding``."""

    ACCEPT = ("application/json", "text/plain", "*/*")

    def __init__(self, encoding: str = "utf-8", accept: str | None = None) -> None:
        super().__init__(accept)
        self.encoding = encoding

    def deserialize(self, data: bytes, content_type: str) -> str:
        return data.decode(self.encoding)


class BytesDeserializer(BaseDeserializer):
    """The body as it came."""

    def deserialize(self, data: bytes, content_type: str) -> bytes:
        return data


class NumpyDeserializer(BaseDeserializer):
    """An array, from .npy (without objects: those would need pickle), JSON or CSV."""

    ACCEPT = ("application/x-npy",)

    def __init__(self, dtype: Any = None, accept: str | None = None) -> None:
        super().__init__(accept)
        self.dtype = dtype

    def deserialize(self, data: bytes, content_type: str) -> Any:
        from ridgeline._numpy import read_array  # numpy: only for those who use it

        return read_array(data, content_type, self.dtype)


def _parse(data: bytes, content_type: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        start = data[:200].decode(errors="replace")
        raise InvocationFailed(
            f"The answer ({content_type or 'no content type'}) is not JSON: {error}. "
            f"It begins with {start!r}.",
            hint="Give the predictor the deserializer for what the model answers with.",
        ) from None
