"""The native kernels of a variant, wherever tests run: on the processor, or emulated.

What the processor lacks is compiled against SIMDe, which writes the same functions in portable C
(`emulated/immintrin.h`). So every line of the AVX-512 kernels runs in tests on any machine.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from ridgeline_backends.cpu.kernels import build
from ridgeline_backends.cpu.kernels.library import Library, Matrix, Model, Step, library

EMULATED = ("avx512", "avx512_bf16")
VARIANTS = ("plain", "avx2", *EMULATED)
_HEADERS = Path(__file__).with_name("emulated")
_CACHE = Path(__file__).parents[2] / ".cache" / "tests" / "kernels"
# Optimised for the compiler's time: this is a tenth of -O2's.
_FLAGS = shlex.split("-std=c11 -Og -fPIC -fvisibility=hidden -ffp-contract=off -Wno-psabi")


class Poisoned(Library):
    """Fills scratch and results with no-numbers before every call: nothing may depend on them."""

    def forward(self, model: Model, step: Step) -> None:
        size = self.scratch_bytes(model, step.rows, step.threads, adapters=bool(step.adapter))
        ctypes.memset(step.scratch, 0xFF, size)
        if step.wanted:
            ctypes.memset(step.logits, 0xFF, 4 * step.wanted * model.head.n)
        super().forward(model, step)

    def linear(self, matrix: Matrix, x: int, y: int, rows: int, threads: int, scratch: int) -> None:
        ctypes.memset(scratch, 0xFF, self.linear_scratch_bytes(matrix, rows, threads))
        ctypes.memset(y, 0xFF, 4 * rows * matrix.n)
        super().linear(matrix, x, y, rows, threads, scratch)


def library_of(variant: str, kind: type[Library] = Library) -> Library:
    """The kernels of one variant. Skips the test where they can neither run nor be emulated.

    A library on the processor is one per process: whoever uses this switches back.
    """
    found = library()
    if found is None:
        pytest.skip("there is neither a C compiler nor a prebuilt library")
    if variant in found.variants:
        return kind(found.path, variant)
    if variant not in EMULATED:
        pytest.skip(f"this processor has no {variant}, and there is no emulation of it")
    if build.compiler() is None:
        pytest.skip(f"this processor has no {variant}, and there is no C compiler to emulate it")
    if not _has_simde():
        pytest.skip(f"this processor has no {variant}, and libsimde-dev is not installed")
    return kind(_emulated(variant), variant)


@cache
def _has_simde() -> bool:
    command = [*_command(), "-E", "-include", "simde/x86/avx512.h", "-x", "c", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _command() -> list[str]:
    command = build.compiler()
    assert command is not None
    return command


@cache
def _emulated(variant: str) -> Path:
    """A library of that variant alone, built once for its sources."""
    sources = [*(build.SOURCES / f"{one}.c" for one in build.VARYING), _HEADERS / "variant.c"]
    flags = [*_command(), *_FLAGS, f"-I{_HEADERS}", f"-I{build.SOURCES}", "-shared"]
    flags += ["-DRL_AVX2", "-DRL_AVX512", f'-DRL_NAME="{variant}"', "-DRL_VARIANT(name)=rl_##name"]
    found = library()
    if found is not None and "avx2" in found.variants:
        # The compiler then makes two of each vector rather than four, in a third of the time.
        flags.append("-mavx2")
    if variant == "avx512_bf16":
        flags.append("-DRL_AVX512_BF16")
    digest = sha256(shlex.join(flags).encode())
    for path in (*sorted(build.SOURCES.iterdir()), *sorted(_HEADERS.iterdir())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    target = _CACHE / f"{variant}-{digest.hexdigest()[:20]}.so"
    if not target.is_file():
        _CACHE.mkdir(parents=True, exist_ok=True)
        scratch = target.with_suffix(f".{os.getpid()}")
        subprocess.run([*flags, *map(str, sources), "-lm", "-o", str(scratch)], check=True)
        scratch.replace(target)
    return target
