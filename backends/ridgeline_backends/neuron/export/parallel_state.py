"""The tensor-parallel degree that modules are being made for, as NxD's `parallel_state` has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SIZE: ContextVar[int] = ContextVar("tensor_model_parallel_size", default=1)


def get_tensor_model_parallel_size() -> int:
    """Cores that share a model; 1 outside of `tensor_model_parallel`."""
    return _SIZE.get()


@contextmanager
def tensor_model_parallel(size: int) -> Iterator[None]:
    """Modules that are made within hold the part of one core out of `size`."""
    token = _SIZE.set(size)
    try:
        yield
    finally:
        _SIZE.reset(token)
