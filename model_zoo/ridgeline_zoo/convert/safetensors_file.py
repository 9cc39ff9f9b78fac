"""Safetensors files from raw bytes, one tensor in memory at a time, and their headers.

The format is eight bytes of header length, a JSON header and the tensors end to end
(https://huggingface.co/docs/safetensors). Written here because the library's own writers want
every tensor at once, or a framework that has bfloat16.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ridgeline_zoo.errors import CannotConvert

DTYPE_NAMES: Mapping[str, str] = {"bf16": "BF16", "fp32": "F32"}
_WIDTHS: Mapping[str, int] = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8, "F64": 8, "I32": 4, "U8": 1}
_FLOATS: Mapping[str, str] = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
# The limit of the format's own reader.
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written; ``produce`` makes its bytes, little-endian, when it is its turn."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    produce: Callable[[], bytes]

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        count = 1
        for length in self.shape:
            count *= length
        return count * _WIDTHS[self.dtype]


class TensorHeader(BaseModel):
    """One entry of a file's header."""

    model_config = ConfigDict(strict=True)

    dtype: str
    shape: list[int]
    data_offsets: list[int]


_HEADER = TypeAdapter(dict[str, TensorHeader | dict[str, str]])


def write_safetensors(
    path: Path, tensors: Sequence[TensorPlan], *, wrote: Callable[[int], None]
) -> None:
    """Write the tensors in the order given; ``wrote`` is told the bytes of each."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(encoded)))
        out.write(encoded)
        for tensor in tensors:
            data = tensor.produce()
            if len(data) != tensor.size:
                raise CannotConvert(
                    f"{tensor.name} has {len(data)} bytes, its shape asks for {tensor.size}"
                )
            out.write(data)
            wrote(len(data))


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Names, dtypes and shapes in a file. Raises CannotConvert if the file is cut or broken."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise CannotConvert(f"{path.name} is no safetensors file, or is cut short")
        encoded = stream.read(length)
    try:
        parsed = _HEADER.validate_json(encoded)
    except ValidationError as error:
        raise CannotConvert(f"{path.name} has a broken safetensors header") from error
    tensors = {name: entry for name, entry in parsed.items() if isinstance(entry, TensorHeader)}
    end = max((entry.data_offsets[-1] for entry in tensors.values()), default=0)
    if 8 + length + end != size:
        raise CannotConvert(
            f"{path.name} has {size} bytes, its header asks for {8 + length + end}: it is cut short"
        )
    return tensors


def recast(source: Path, target: Path, dtype: str, *, wrote: Callable[[int], None]) -> None:
    """Write a file again with its floating-point tensors in ``dtype`` ("bf16" or "fp32").

    Names and order stay; integers are copied. Raises CannotConvert for a dtype not known here.
    """
    headers = read_header(source)
    with source.open("rb") as stream:
        start = 8 + struct.unpack("<Q", stream.read(8))[0]
    raw = np.memmap(source, dtype=np.uint8, mode="r", offset=start)
    plans = []
    for name, entry in sorted(headers.items(), key=lambda item: item[1].data_offsets[0]):
        if entry.dtype not in _WIDTHS:
            raise CannotConvert(f"{source.name} holds {name} as {entry.dtype}, which is not read")
        wanted = DTYPE_NAMES[dtype] if entry.dtype in _FLOATS else entry.dtype
        first, end = entry.data_offsets
        produce = partial(_recast_bytes, raw[first:end], entry.dtype, dtype)
        plans.append(TensorPlan(name, tuple(entry.shape), wanted, produce))
    write_safetensors(target, plans, wrote=wrote)


def _recast_bytes(raw: npt.NDArray[np.uint8], stored: str, dtype: str) -> bytes:
    if stored not in _FLOATS or stored == DTYPE_NAMES[dtype]:
        return raw.tobytes()
    data = np.frombuffer(raw.tobytes(), dtype=_FLOATS[stored])
    if stored == "BF16":
        return to_bytes((data.astype("<u4") << np.uint32(16)).view("<f4"), dtype)
    return to_bytes(data.astype(np.float32), dtype)


def dtypes_in(headers: Iterable[TensorHeader]) -> set[str]:
    """Floating-point dtypes used, in safetensors' names."""
    return {entry.dtype for entry in headers if entry.dtype.startswith(("F", "BF"))}


def to_bytes(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    """fp32 values as the bytes of ``dtype`` ("bf16" rounds to nearest, ties to even)."""
    contiguous = np.ascontiguousarray(values, dtype="<f4")
    if dtype == "fp32":
        return contiguous.tobytes()
    bits = contiguous.view("<u4")
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    # Rounding may carry a NaN's mantissa over into infinity: keep it a (quiet) NaN.
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    rounded = np.where(nan, bits | np.uint32(0x00400000), rounded)
    return (rounded >> np.uint32(16)).astype("<u2").tobytes()
