"""The native library as Python sees it: loaded once, with the structs of csrc/ridgeline.h.

Calls release the interpreter lock, so that a server's other threads run while a step computes.
"""

from __future__ import annotations

import ctypes
import logging
import os
from ctypes import POINTER, Array, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ridgeline_backends.cpu.kernels.build import PREBUILT, build_kernels
from ridgeline_backends.errors import KernelBuildFailed

log = logging.getLogger(__name__)

ABI = 6
F32, BF16, INT8 = 0, 1, 2
SILU, GELU_TANH = 0, 1
TARGETS = ("qkv", "o", "gate_up", "down")
MAX_RANK = 512
PANEL = 16
WIDTH = 64
"""What both sides of weights and widths of activations are rounded up to."""


class Int8Form(Structure):
    """What 8-bit weights are for a variant: ``group`` numbers of a row share a scale, the last ones
    perhaps half as many; ``narrow``: four products of them are added in 16 bits."""

    _fields_ = (("group", c_int32), ("narrow", c_int32))


class Matrix(Structure):
    _fields_ = (
        ("data", c_void_p),
        ("bias", c_void_p),
        ("type", c_int32),
        ("n", c_int32),
        ("k", c_int32),
        ("reserved", c_int32),
    )


class LowRank(Structure):
    _fields_ = (("down", Matrix), ("up", Matrix))


class Layer(Structure):
    _fields_ = (
        ("attention_norm", c_void_p),
        ("post_attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("post_mlp_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("qkv", Matrix),
        ("o", Matrix),
        ("gate_up", Matrix),
        ("down", Matrix),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("kv", c_void_p),
        ("window", c_int32),
        ("reserved", c_int32),
    )


class Model(Structure):
    _fields_ = (
        ("hidden", c_int32),
        ("layers", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("rotary_dim", c_int32),
        ("intermediate", c_int32),
        ("vocab", c_int32),
        ("activation", c_int32),
        ("kv_type", c_int32),
        ("block_size", c_int32),
        ("reserved", c_int32),
        ("kv_stride", c_int64),
        ("norm_eps", c_float),
        ("attention_scale", c_float),
        ("attention_softcap", c_float),
        ("final_softcap", c_float),
        ("embedding_scale", c_float),
        ("reserved_float", c_float),
        ("layer", POINTER(Layer)),
        ("norm", c_void_p),
        ("head", Matrix),
        ("embedding", Matrix),
    )


class Chunk(Structure):
    _fields_ = (
        ("first_row", c_int32),
        ("rows", c_int32),
        ("start", c_int32),
        ("first_block", c_int32),
        ("adapter", c_int32),
        ("reserved", c_int32),
    )


class Step(Structure):
    _fields_ = (
        ("rows", c_int32),
        ("chunks", c_int32),
        ("wanted", c_int32),
        ("threads", c_int32),
        ("tokens", c_void_p),
        ("chunk", c_void_p),
        ("block_table", c_void_p),
        ("wanted_row", c_void_p),
        ("logits", c_void_p),
        ("adapter", c_void_p),
        ("scratch", c_void_p),
    )


class Product(Structure):
    _fields_ = (
        ("w", Matrix),
        ("x", c_void_p),
        ("y", c_void_p),
        ("rows", c_int32),
        ("reserved", c_int32),
    )


class RowsOf(Structure):
    _fields_ = (("data", c_void_p), ("core", c_int64), ("row", c_int64))


class Kind(IntEnum):
    """What an operation of a simulated core's program does."""

    PRODUCT = 0
    ATTEND = 1
    SUM = 2
    ADD = 3
    NORM = 4
    TURN = 5
    PUT = 6
    GATED = 7


class Operation(Structure):
    _fields_ = (
        ("kind", c_int32),
        ("joined", c_int32),
        ("round", c_int32),
        ("cores", c_int32),
        ("parts", c_int32),
        ("rows", c_int32),
        ("width", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("dim", c_int32),
        ("rotary", c_int32),
        ("each", c_int32),
        ("window", c_int32),
        ("entries", c_int32),
        ("type", c_int32),
        ("activation", c_int32),
        ("scale", c_float),
        ("softcap", c_float),
        ("eps", c_float),
        ("reserved", c_float),
        ("x", RowsOf),
        ("y", RowsOf),
        ("z", RowsOf),
        ("out", RowsOf),
        ("key_slot", c_int64),
        ("key_head", c_int64),
        ("value_slot", c_int64),
        ("value_head", c_int64),
        ("matrix", c_void_p),
        ("position", c_void_p),
        ("slot", c_void_p),
    )


class Library:
    """The loaded library of `path`. `variant` is the one in use; there is one per process."""

    def __init__(self, path: Path, variant: str = "") -> None:
        _open_openmp()
        self.path = path
        self._c = c = ctypes.CDLL(str(path))
        c.rl_use.restype = c.rl_variants.restype = c_char_p
        c.rl_int8.restype = POINTER(Int8Form)
        c.rl_scratch_bytes.restype = c.rl_products_scratch_bytes.restype = c_int64
        c.rl_scratch_bytes.argtypes = (POINTER(Model), c_int32, c_int32, c_int32)
        c.rl_forward.argtypes = (POINTER(Model), POINTER(Step))
        c.rl_forward.restype = None
        c.rl_products_scratch_bytes.argtypes = (POINTER(Product), c_int32, c_int32)
        c.rl_products.argtypes = (POINTER(Product), c_int32, c_int32, c_void_p)
        c.rl_run_scratch_bytes.argtypes = (POINTER(Operation), c_int32, c_int32)
        c.rl_run_scratch_bytes.restype = c_int64
        c.rl_run.argtypes = (POINTER(Operation), c_int32, c_int32, c_void_p)
        c.rl_products.restype = c.rl_run.restype = None
        if c.rl_abi() != ABI:
            raise OSError(f"{path} has interface {c.rl_abi()}, not {ABI}")
        self.variant = self.use(variant)

    @property
    def variants(self) -> list[str]:
        """Those this processor can run, best first."""
        return str(self._c.rl_variants().decode()).split(",")

    def use(self, variant: str) -> str:
        """Switch to a variant ("" is the best one). Raises `ValueError` where it cannot run."""
        found = self._c.rl_use(variant.encode())
        if found is None:
            raise ValueError(
                f"Kernel variant {variant!r} does not run on this processor; "
                f"there are: {', '.join(self.variants)}."
            )
        self.variant = str(found.decode())
        return self.variant

    @property
    def int8(self) -> Int8Form:
        """Of 8-bit weights, for the variant in use."""
        form: Int8Form = self._c.rl_int8().contents
        return form

    def scratch_bytes(self, model: Model, rows: int, threads: int, *, adapters: bool) -> int:
        return int(self._c.rl_scratch_bytes(model, rows, threads, adapters))

    def forward(self, model: Model, step: Step) -> None:
        self._c.rl_forward(model, step)

    def linear_scratch_bytes(self, matrix: Matrix, rows: int, threads: int) -> int:
        return self.products_scratch_bytes((Product * 1)(Product(w=matrix, rows=rows)), threads)

    def linear(self, matrix: Matrix, x: int, y: int, rows: int, threads: int, scratch: int) -> None:
        """`x`, `y` and `scratch` are addresses."""
        self.products((Product * 1)(Product(w=matrix, x=x, y=y, rows=rows)), threads, scratch)

    def products_scratch_bytes(self, products: Array[Product], threads: int) -> int:
        return int(self._c.rl_products_scratch_bytes(products, len(products), threads))

    def products(self, products: Array[Product], threads: int, scratch: int) -> None:
        """Matrix products one after the other. `scratch` is an address."""
        self._c.rl_products(products, len(products), threads, scratch)

    def run_scratch_bytes(self, operations: Array[Operation], threads: int) -> int:
        return int(self._c.rl_run_scratch_bytes(operations, len(operations), threads))

    def run(self, operations: Array[Operation], threads: int, scratch: int) -> None:
        """Operations one after the other, in one parallel region. `scratch` is an address."""
        self._c.rl_run(operations, len(operations), threads, scratch)


@cache
def library() -> Library | None:
    """The kernels, or None where there is neither a prebuilt library nor a compiler.

    RIDGELINE_KERNELS=off does without them; the name of a variant chooses that one.
    """
    chosen = os.environ.get("RIDGELINE_KERNELS", "")
    if chosen == "off":
        return None
    try:
        return Library(PREBUILT if PREBUILT.is_file() else build_kernels(), chosen)
    except (KernelBuildFailed, OSError) as error:
        log.warning(
            "No native kernels, so models run in plain torch, several times slower: %s", error
        )
        return None


def _open_openmp() -> None:
    """Make OpenMP's functions visible to the library: torch's own copy, wherever torch lies."""
    spec = find_spec("torch")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        root = Path(place)
        for folder in (root / "lib", root.parent / "torch.libs"):
            for path in sorted(folder.glob("libgomp*.so*")):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
                return
    # A torch that uses the system's.
    ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
