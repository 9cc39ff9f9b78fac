"""Tensors of a model directory: safetensors only, mapped into memory, read when asked for."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ridgeline_backends.errors import InvalidModel, MismatchedTensor, MissingTensor
from ridgeline_backends.models.reader import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weight_files(model_dir: Path) -> list[Path]:
    """The weight files of a directory, one or sharded. Raises `InvalidModel`."""
    if (model_dir / SINGLE).is_file():
        return [model_dir / SINGLE]
    if not (model_dir / INDEX).is_file():
        raise InvalidModel(
            f"The model directory has neither {SINGLE} nor {INDEX}.",
            hint="Only safetensors weights are read; convert others first.",
        )
    shards = read_json(model_dir / INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise InvalidModel(f"{INDEX} has no weight_map.")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        # An index comes from outside and may not point elsewhere.
        if Path(name).name != name or not (model_dir / name).is_file():
            raise InvalidModel(f"{INDEX} names {name!r}, which is not in the model directory.")
    return [model_dir / name for name in names]


class Weights:
    """The named tensors of a model. A context manager: it holds the files open."""

    def __init__(self, model_dir: Path) -> None:
        self._where = model_dir.name
        self._stack = ExitStack()
        self._file_of: dict[str, safe_open] = {}
        self._read: list[tuple[int, int]] = []
        try:
            for path in weight_files(model_dir):
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                self._file_of.update(dict.fromkeys(file.keys(), file))
        except SafetensorError as error:
            self._stack.close()
            raise InvalidModel(
                f"The weights cannot be read: {error}", hint="The file may be cut short."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def get(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape. Raises `MissingTensor` or `MismatchedTensor`."""
        tensor = self.stored(name)
        if tuple(tensor.shape) != shape:
            raise MismatchedTensor(name, f"of shape {shape}", f"of shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise MismatchedTensor(name, "floating point", f"of type {tensor.dtype}")
        return tensor

    def stored(self, name: str) -> Tensor:
        """A tensor of any shape and type. Raises `MissingTensor`."""
        if name not in self._file_of:
            raise MissingTensor(name, where=self._where)
        tensor: Tensor = self._file_of[name].get_tensor(name)  # type: ignore[no-untyped-call]
        self._read.append((tensor.data_ptr(), tensor.nbytes))
        return tensor

    def drop_pages(self) -> None:
        """Let go of the memory that reading has filled; what is read again comes from the file.

        Otherwise a process that copies its weights holds both the copies and the whole file.
        """
        page = mmap.PAGESIZE
        system = ctypes.CDLL(None)
        mapped = _mapped_weights()
        for address, size in self._read:
            begin, end = -(-address // page) * page, (address + size) // page * page
            # Memory of any other kind would lose what is in it.
            if begin < end and any(low <= begin and end <= high for low, high in mapped):
                system.madvise(
                    ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED
                )
        self._read.clear()


def _mapped_weights() -> list[tuple[int, int]]:
    """Where this process has weight files mapped; nothing where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    ranges = (line.split()[0].split("-") for line in lines if line.endswith(".safetensors"))
    return [(int(low, 16), int(high, 16)) for low, high in ranges]
