"""Arrays as bytes. The one file of the client that imports numpy, and only when it is called."""

from __future__ import annotations

import io
import json
from importlib import import_module
from typing import Any

from ridgeline.errors import InvalidInput, InvocationFailed, Unsupported


def write_npy(data: Any, dtype: Any = None) -> bytes:
    """``data`` (array, nested lists or a number) in .npy format."""
    numpy = _numpy()
    try:
        array = numpy.asarray(data, dtype=dtype)
        out = io.BytesIO()
        numpy.save(out, array, allow_pickle=False)
    except ValueError as error:
        raise InvalidInput(f"This value cannot be written as an array: {error}") from None
    return out.getvalue()


def read_array(data: bytes, content_type: str, dtype: Any = None) -> Any:
    """The array in an answer of type .npy, JSON or CSV."""
    numpy = _numpy()
    kind = content_type.partition(";")[0].strip()
    try:
        if kind == "application/json":
            return numpy.array(json.loads(data), dtype=dtype)
        if kind == "text/csv":
            return numpy.genfromtxt(io.BytesIO(data), delimiter=",", dtype=dtype)
        array = numpy.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise InvocationFailed(f"The answer ({content_type}) is no array: {error}") from None
    return array if dtype is None else array.astype(dtype)


def _numpy() -> Any:
    try:
        return import_module("numpy")
    except ModuleNotFoundError:
        raise Unsupported("Arrays need numpy.", hint="pip install numpy") from None
