"""A job's sandbox: what of the disk, the network and the devices its processes see."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline_service.placement.gpus import gpu_files
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.mounts import Mount
from ridgeline_service.runtime.sandbox import Sandbox
from ridgeline_service.runtime.shim import Command
from ridgeline_service.training import layout
from ridgeline_service.training.order import Order
from ridgeline_service.training.toolkit import master_port

LOOPBACK = "127.0.0.1"
SPINS_ALONE, SPINS_SHARED = "10000", "1000"
"""How often an OpenMP thread looks for the others before it sleeps.

Its own 300,000 are milliseconds. Where jobs share cores that takes the cores from those that are
waited for: a step took up to six times as long. Few looks cost a job that has the cores to itself
an eighth of its speed, 10,000 nothing; two jobs at once gain half as much again by few."""
_PACKAGES = "packages"
PACKAGES = f"{sandbox.HOME}/{_PACKAGES}"
"""Where pip puts what the script itself installs: the runtime's own packages cannot be changed."""


@dataclass(frozen=True)
class Packages:
    """What the script imports beyond the runtime: overlay directories, in front."""

    python: Path
    overlays: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()


def command_line(
    order: Order, command: Sequence[str], packages: Packages, scratch: Path, root: Path
) -> Command:
    """``command`` inside; ``root`` becomes /opt/ml, ``scratch`` holds the other writable rooms."""
    # There before the interpreter is: it looks no more where it once found no folder.
    own = scratch / "home" / _PACKAGES / _site_packages(packages.python)
    own.mkdir(parents=True, exist_ok=True)
    confinement = order.confinement
    inside = Sandbox(
        python=packages.python,
        scratch=scratch,
        read_only=(*packages.overlays, *packages.read_only),
        hidden=tuple(Path(path) for path in confinement.hidden),
        network=confinement.network,
        devices=gpu_files() if confinement.gpus else (),
        hostname=order.host,
        cwd=layout.CODE if order.processing is None else layout.PROCESSING,
        names=dict.fromkeys(order.hosts, LOOPBACK),
        extra=(Mount("writable", layout.INSIDE, str(root)),),
    )
    return sandbox.wrap(command, inside, confinement.tool)


def environment(
    order: Order, packages: Packages, facts: Mapping[str, str], pip: Mapping[str, str]
) -> dict[str, str]:
    """The script's environment. The user's own variables have the last word about recommendations,
    and none about what the contract promises. PYTHONPATH and PATH are of both: the user's modules
    come first, but programs after the runtime's, whose Python is needed."""
    confinement = order.confinement
    version = _site_packages(packages.python)
    paths = [layout.CODE, *map(str, packages.overlays), f"{PACKAGES}/{version}"]
    given = order.environment.get("PYTHONPATH")
    programs = order.environment.get("PATH")
    # The one that boto3 reads; SageMaker promises the other one.
    recommended: dict[str, str] = {"AWS_DEFAULT_REGION": order.region, **pip}
    recommended["GOMP_SPINCOUNT"] = SPINS_ALONE if confinement.alone else SPINS_SHARED
    if confinement.threads is not None:
        recommended["OMP_NUM_THREADS"] = str(confinement.threads)
    if confinement.gpus:
        recommended["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, confinement.gpus))
        recommended["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    # For a torchrun that is told no port: other jobs on this machine would take the usual one.
    recommended["PET_MASTER_PORT"] = str(master_port(order))
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        recommended[name] = layout.NETWORK_INTERFACE
    promised = {
        **facts,
        "AWS_REGION": order.region,
        "CURRENT_HOST": order.host,
        "PIP_PREFIX": PACKAGES,
        "PYTHONPATH": os.pathsep.join([*([given] if given else []), *paths]),
        "PATH": os.pathsep.join(
            [
                str(packages.python.parent),
                *(f"{overlay}/bin" for overlay in packages.overlays),
                f"{PACKAGES}/bin",
                layout.CODE,
                *([programs] if programs else []),
                "/usr/local/bin:/usr/bin:/bin",
            ]
        ),
    }
    wanted = {**recommended, **order.environment, **promised}
    return sandbox.environment(wanted, python=packages.python)


def _site_packages(python: Path) -> str:
    """``lib/python3.11/site-packages`` of this interpreter."""
    found = sorted(python.parent.parent.glob("lib/python*/site-packages"))
    return str(found[0].relative_to(python.parent.parent)) if found else "lib/site-packages"
