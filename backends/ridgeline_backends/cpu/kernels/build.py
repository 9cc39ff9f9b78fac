"""Compiles the C sources into one shared library with the system's compiler. Imports no torch.

Called at first use, by the wheel's build hook, and by hand: `python -m
ridgeline_backends.cpu.kernels.build`. Every variant is an object file of its own, compiled for its
processor features; which one runs is decided when the library is used, so one library serves every
processor of an architecture. OpenMP's functions are left open: the process has torch's OpenMP
already, and a second one would bring a second pool of threads.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from ridgeline_backends.errors import KernelBuildFailed

SOURCES = Path(__file__).with_name("csrc")
VARYING = ("forward", "program")
"""The sources that every variant is compiled from."""
LIBRARY = "libridgeline_kernels.so"
PREBUILT = Path(__file__).with_name(LIBRARY)
"""Where a wheel carries it."""

# Lists spelt as one would type them.
_FLAGS = shlex.split(
    "-O3 -std=c11 -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno "
    "-fno-trapping-math -fno-strict-aliasing -Wall -Wextra -Wno-psabi"
)
_AVX2 = shlex.split("-mavx2 -mfma -DRL_AVX2")
_AVX512 = _AVX2 + shlex.split("-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -DRL_AVX512")
_VARIANTS = {
    "plain": [],
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx512_bf16": [*_AVX512, "-mavx512bf16", "-DRL_AVX512_BF16"],
}


def variants() -> dict[str, list[str]]:
    """The variants of this architecture, with the flags of each."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return _VARIANTS
    return {"plain": _VARIANTS["plain"]}


def compiler() -> list[str] | None:
    """The command of the C compiler: $CC, else cc, gcc or clang; None where there is none."""
    chosen = os.environ.get("CC")
    if chosen:
        words = shlex.split(chosen)
        return words if shutil.which(words[0]) else None
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def build_kernels(directory: Path | None = None) -> Path:
    """The library, compiled unless it is there already. The path is keyed by sources, flags,
    compiler and architecture. Raises `KernelBuildFailed`."""
    command = compiler()
    if command is None:
        raise KernelBuildFailed("There is no C compiler.", hint="Install gcc or clang, or set CC.")
    folders = [directory] if directory else cache_directories()
    targets = [folder / _key(command) / LIBRARY for folder in folders]
    found = next((target for target in targets if target.is_file()), None)
    if found is not None:
        return found
    refused: OSError | None = None
    for target in targets:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=target.parent)
        except OSError as error:
            refused = error
            continue
        with scratch as folder:
            # In one step, so that nobody finds half a library and builders do not meet.
            _compile(command, Path(folder)).replace(target)
        return target
    raise KernelBuildFailed(f"No folder to build in: {refused}", hint="Set XDG_CACHE_HOME.")


def kernels_wait_for_build() -> bool:
    """Whether the next to use them would have to compile them first, and can."""
    command = compiler()
    if PREBUILT.is_file() or os.environ.get("RIDGELINE_KERNELS") == "off" or command is None:
        return False
    return not any((d / _key(command) / LIBRARY).is_file() for d in cache_directories())


def cache_directories() -> list[Path]:
    """Beside the sources, where sandboxed replicas see what was built before; the user's own."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [SOURCES.parent / "_build", Path(base) / "ridgeline" / "kernels"]


def _compile(command: list[str], scratch: Path) -> Path:
    jobs = [
        _start(
            [
                *command,
                *_FLAGS,
                *flags,
                f"-DRL_VARIANT(name)=rl_{name}_##name",
                "-c",
                str(SOURCES / f"{source}.c"),
                "-o",
                str(scratch / f"{source}.{name}.o"),
            ]
        )
        for name, flags in variants().items()
        for source in VARYING
    ]
    dispatch = [*command, *_FLAGS, "-c", str(SOURCES / "dispatch.c")]
    jobs.append(_start([*dispatch, "-o", str(scratch / "dispatch.o")]))
    for job in jobs:
        _finish(job)
    objects = [str(path) for path in sorted(scratch.glob("*.o"))]
    library = scratch / LIBRARY
    _finish(_start([*command, "-shared", *objects, "-lm", "-o", str(library)]))
    return library


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _finish(job: subprocess.Popen[str]) -> None:
    printed, _ = job.communicate()
    if job.returncode:
        assert isinstance(job.args, list)
        raise KernelBuildFailed(
            f"{shlex.join(map(str, job.args))} failed:\n{printed[-2000:]}",
            hint="A gcc from 11 or a clang from 14 on knows all instructions that are used.",
        )


def _key(command: list[str]) -> str:
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    digest = sha256(platform.machine().encode())
    for part in (*command, version.stdout, *_FLAGS, repr(variants())):
        digest.update(part.encode() + b"\0")
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


if __name__ == "__main__":
    if compiler() is None:
        # As it says: everything works without, only slower. Sources that do not compile are another
        # matter, and end this with an error.
        sys.stderr.write("No C compiler, so no native kernels: models run in plain torch.\n")
    else:
        sys.stdout.write(f"{build_kernels()}\n")
