"""Compiles the native kernels into wheels: a wheel is of one platform, and needs no compiler.

Without a compiler the wheel is pure, and what installs it compiles at first use or runs in plain
torch. The library lies in a folder of its own until it is packed, never among the sources.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).with_name("backends")))
sys.path.insert(0, str(Path(__file__).with_name("sdk")))

from ridgeline_backends.cpu.kernels.build import LIBRARY, build_kernels
from ridgeline_backends.errors import KernelBuildFailed

_PLACE = f"ridgeline_backends/cpu/kernels/{LIBRARY}"


class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Found as `custom` in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install runs from the sources and compiles for itself.
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        try:
            library = build_kernels(Path(self._folder.name))
        except KernelBuildFailed as error:
            self.app.display_warning(f"The wheel carries no native kernels: {error.message}")
            self.app.display_warning(error.hint)
            return
        build_data["force_include"][str(library)] = _PLACE
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def _platform() -> str:
    """The kernels need Python of no version: only a machine of this kind, and its C library."""
    name = os.environ.get("_PYTHON_HOST_PLATFORM") or sysconfig.get_platform()
    return name.replace("-", "_").replace(".", "_")
