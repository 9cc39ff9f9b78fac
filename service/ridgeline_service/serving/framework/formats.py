"""Content types of the default input_fn and output_fn: JSON, CSV, NPY, plain text.

As in SageMaker's inference toolkits. Nothing is unpickled: arrays that hold objects are refused.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from ridgeline_service.serving.framework.errors import (
    BadRequest,
    NotAcceptable,
    UnsupportedContentType,
)

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
TEXT = "text/plain"
BYTES = "application/octet-stream"
ANY = "*/*"

_OUTPUT = (JSON, CSV, NPY, TEXT)
UTF8_TYPES = (JSON, CSV)


def media_type(header: str) -> str:
    """``text/csv`` of ``text/csv; charset=utf-8``."""
    return header.partition(";")[0].strip().lower()


def decoded_body(body: bytes, content_type: str) -> bytes | str:
    """What an input_fn is given: text for JSON and CSV, else bytes, as the toolkits do."""
    if media_type(content_type) not in UTF8_TYPES:
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8, though it is {content_type}: {error}") from None


def decode(body: bytes | str, content_type: str) -> Any:
    """The body as Python values (JSON) or a numpy array (CSV, NPY).

    Raises UnsupportedContentType, or BadRequest where the body is not of its type.
    """
    kind = media_type(content_type)
    try:
        if kind == JSON:
            return json.loads(body)
        if kind == JSON_LINES:
            text = body if isinstance(body, str) else body.decode()
            # Not splitlines: JSON texts may hold the other line ends that Unicode knows.
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if kind == TEXT:
            return body if isinstance(body, str) else body.decode()
        if kind == CSV:
            import numpy  # inner: only the framework's interpreter has it

            text = body if isinstance(body, str) else body.decode()
            return numpy.genfromtxt(io.StringIO(text), delimiter=",", dtype=None, encoding="utf-8")
        if kind == NPY:
            import numpy  # inner: as above

            raw = body if isinstance(body, bytes) else body.encode()
            return numpy.load(io.BytesIO(raw), allow_pickle=False)
    except ValueError as error:
        raise BadRequest(f"The body could not be read as {kind}: {error}") from None
    raise UnsupportedContentType(
        f"Content type {content_type or '(none)'} is not supported. "
        f"Use {JSON}, {CSV} or {NPY}, or write an input_fn."
    )


def choose(accept: str, default: str) -> str:
    """The first type of an Accept header that can be written; ``default`` for none or ``*/*``.

    Raises NotAcceptable.
    """
    wanted = [media_type(item) for item in accept.split(",") if item.strip()]
    for kind in wanted or [ANY]:
        if kind in (ANY, "application/*") and default:
            return media_type(default)
        if kind in _OUTPUT:
            return kind
    raise NotAcceptable(
        f"Accept {accept} is not supported. Use {', '.join(_OUTPUT)}, or write an output_fn."
    )


def encode(value: Any, kind: str) -> bytes:
    """``value`` (tensors and arrays included) as ``kind``, one of JSON, CSV, NPY and plain text."""
    if kind == JSON:
        return json.dumps(value, default=plain, ensure_ascii=False).encode()
    if kind == NPY:
        import numpy  # inner: only the framework's interpreter has it

        buffer = io.BytesIO()
        numpy.save(buffer, numpy.asarray(plain(value)), allow_pickle=False)
        return buffer.getvalue()
    if kind == CSV:
        return _csv(plain(value))
    if kind == TEXT:
        return str(plain(value)).encode()
    raise NotAcceptable(f"Values cannot be written as {kind}: write an output_fn.")


def plain(value: Any) -> Any:
    """A tensor, array or numpy scalar as lists and numbers; dates as text; the rest as it is.

    Raises TypeError for what JSON cannot hold, where it is called as json's ``default``.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, str | int | float | bool | list | tuple | dict) or value is None:
        return value
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _csv(value: Any) -> bytes:
    """Rows of a nested list, a flat one's values each on a line; a list of mappings gets a header
    line."""
    rows = value if isinstance(value, list | tuple) else [value]
    buffer = io.StringIO()
    if rows and isinstance(rows[0], dict):
        table = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    else:
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows(row if isinstance(row, list | tuple) else [row] for row in rows)
    return buffer.getvalue().encode()
