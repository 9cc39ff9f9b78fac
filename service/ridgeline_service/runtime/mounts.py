"""What of this machine every sandbox shows, as lines of a plan that a sandbox tool carries out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

MountKind = Literal["read-only", "writable", "tmpfs", "symlink", "proc", "dev", "device"]

_MACHINE = (
    "sys",
    "sysrq-trigger",
    "irq",
    "bus",
    "fs",
    "acpi",
    "scsi",
    "kcore",
    "keys",
    "timer_list",
)
_LIB = "/lib"
_MOST_LINKS = 1000  # of one folder; bubblewrap takes at most 9000 words
_SYSTEM = ("/usr", "/bin", "/sbin", _LIB, "/lib32", "/lib64", "/libx32", "/nix/store", "/sys")
# Public files that libraries read; none of them holds a secret. passwd and group are written anew.
_ETC = (
    "alternatives",
    "ca-certificates",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)


@dataclass(frozen=True)
class Mount:
    """One line of the plan, carried out in order. ``source`` is a path outside, or what a symlink
    points at; empty where nothing is needed."""

    kind: MountKind
    target: str
    source: str = ""


def system_mounts(*, network: bool) -> list[Mount]:
    """Its programs and libraries, and public files of /etc."""
    mounts = []
    for name in _SYSTEM:
        if own := _own_lib() if name == _LIB else []:
            mounts += own
        elif os.path.islink(name):
            mounts.append(Mount("symlink", name, os.readlink(name)))
        elif os.path.isdir(name):
            mounts.append(Mount("read-only", name, name))
    for name in _ETC:
        path = f"/etc/{name}"
        if name == "resolv.conf" and not network:
            continue
        if os.path.exists(path):
            mounts.append(Mount("read-only", path, os.path.realpath(path)))
    return mounts


def _own_lib() -> list[Mount]:
    """A writable /lib with everything of the system's, where that is a link to a folder of /usr and
    so is seen without it. SageMaker's SDK v3 lets model servers copy a model's libraries there,
    where the linker looks for them."""
    system = os.path.realpath(_LIB)
    names = os.listdir(system) if system.startswith("/usr/") else []
    if not 0 < len(names) <= _MOST_LINKS:
        return []
    links = [Mount("symlink", f"{_LIB}/{name}", f"{system}/{name}") for name in sorted(names)]
    return [Mount("tmpfs", _LIB), *links]


def kernel_mounts() -> list[Mount]:
    """What of /proc is the whole machine's. Files there belong to root, who may write them without
    any capability: a service that runs as root would give its machine away."""
    mounts = []
    for name in _MACHINE:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            mounts.append(Mount("read-only", path, path))
        elif os.path.exists(path):
            mounts.append(Mount("read-only", path, os.devnull))
    return mounts
