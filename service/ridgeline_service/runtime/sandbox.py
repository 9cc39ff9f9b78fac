"""The one launcher of user code and model servers: what a process may see, and how it is confined.

Inside: an own mount namespace built from nothing. /usr and the linker's files, a few public files
of /etc, and the runtime's interpreter are there read-only; /opt/ml/model is the staged model,
read-only; /tmp, the home directory, /opt/ml and /dev/shm are its own and writable, and so is /lib,
a folder of links to the system's libraries to which programs add theirs. An own PID and
IPC namespace, no capabilities, no_new_privs, an environment that holds only what was asked for.
The data directory, other tenants, the service's keys and every user's home do not exist in there.

What this does not isolate, so that nobody relies on it:
- With ``network=True`` the process shares the host's network, loopback included, as a container
  with host networking does. With ``network=False`` it has a loopback of its own and nothing else.
- The user id is the service's. A service that runs as root runs user code as uid 0 without any
  capability; run it as an ordinary user to have less.
- CPU time and disk space are not limited. ``Limits.memory_bytes`` is RLIMIT_DATA: it bounds each
  process's private writable memory, not the sum over processes (RLIMIT_AS would count the
  gigabytes of address space that torch reserves and never touches). ``Limits.processes`` is
  RLIMIT_NPROC, which the kernel does not apply to uid 0.
- System calls are not filtered: the kernel is the boundary.

bubblewrap is used where it works, else ``unshare``; ``capability`` really tries both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from ridgeline.errors import Unsupported
from ridgeline_service.runtime.mounts import Mount, kernel_mounts, system_mounts
from ridgeline_service.runtime.shim import HANDED, Command, call

Tool = Literal["bubblewrap", "unshare"]

MODEL_DIR = "/opt/ml/model"
HOME = "/home/model"
TMP = "/tmp"  # noqa: S108 (inside: a directory of the sandbox's own)

_BINARIES: Mapping[Tool, str] = {"bubblewrap": "bwrap", "unshare": "unshare"}
_ENTER = Path(__file__).with_name("enter.py")


@dataclass(frozen=True)
class Limits:
    """Limits of each process inside; None leaves the service's own."""

    memory_bytes: int | None = None
    processes: int | None = 4096


@dataclass(frozen=True)
class Sandbox:
    """What one process may see.

    ``scratch`` is a directory of its own outside, on disk: ``tmp``, ``home`` and ``etc`` in it are
    shown at /tmp, HOME and /etc. ``read_only`` paths appear where they are. ``hidden`` paths are
    emptied where a visible path contains them (a data directory inside a source tree). ``devices``
    are device files (and folders of them) beyond those that every process has, a GPU's for one.
    ``hostname`` and ``cwd`` are as the process sees them; ``names`` are further host names of
    loopback addresses. ``extra`` mounts come last.
    """

    python: Path
    scratch: Path
    model_dir: Path | None = None
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    network: bool = True
    devices: tuple[Path, ...] = ()
    hostname: str = "model"
    cwd: str = HOME
    names: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[Mount, ...] = ()


@dataclass(frozen=True)
class Capability:
    """Which tool works on this machine, and for each that does not, why."""

    tool: Tool | None
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        if self.tool:
            return f"{self.tool}: own mount, PID and network namespaces work"
        return "; ".join(f"{tool}: {reason}" for tool, reason in self.reasons.items())


@cache
def capability() -> Capability:
    """Try bubblewrap, then unshare, by starting an interpreter in a real sandbox (once)."""
    reasons: dict[str, str] = {}
    for tool in ("bubblewrap", "unshare"):
        reason = try_tool(tool)
        if reason is None:
            return Capability(tool=tool, reasons=reasons)
        reasons[tool] = reason
    return Capability(tool=None, reasons=reasons)


def require() -> Tool:
    """The tool to use. Raises Unsupported with the reasons where no namespace can be made."""
    found = capability()
    if found.tool is None:
        raise Unsupported(
            f"This machine cannot give a process its own /opt/ml ({found.summary}).",
            hint="Install bubblewrap, or allow user namespaces; `ridgeline doctor` tries again.",
        )
    return found.tool


def wrap(command: Sequence[str], sandbox: Sandbox, tool: Tool) -> Command:
    """What runs ``command`` inside, to be started as ``shim.call`` says. Makes the scratch
    directories.

    Secrets belong into the environment, never into ``command``: a command line can be read by every
    user of the machine, and by what runs inside.
    """
    prepare_scratch(sandbox.scratch)
    if sandbox.names:
        _write_hosts(sandbox)
    mounts = plan(sandbox)
    if tool == "bubblewrap":
        return _bubblewrap(mounts, sandbox, command)
    return _unshare(mounts, sandbox, command)


def environment(
    wanted: Mapping[str, str], *, python: Path, home: str = HOME, tmp: str = TMP
) -> dict[str, str]:
    """A clean environment: nothing of the service's own, and ``wanted`` on top of the basics."""
    return {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": home,
        "TMPDIR": tmp,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **wanted,
    }


def prepare_scratch(scratch: Path) -> None:
    """Make ``tmp``, ``home`` and ``etc`` with the accounts file of the sandbox."""
    for name in ("tmp", "home", "etc"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    uid, gid = os.getuid(), os.getgid()
    accounts = {0: ("root", 0), uid: ("root" if uid == 0 else "model", gid)}
    (scratch / "etc" / "passwd").write_text(
        "".join(
            f"{name}:x:{id_}:{group}::{HOME}:/bin/sh\n" for id_, (name, group) in accounts.items()
        )
    )
    (scratch / "etc" / "group").write_text(
        "".join(f"{name}:x:{group}:\n" for name, group in accounts.values())
    )


def plan(sandbox: Sandbox) -> tuple[Mount, ...]:
    """Everything that is visible, in the order in which it is mounted (parents first)."""
    mounts = [*system_mounts(network=sandbox.network)]
    mounts += [Mount("proc", "/proc"), *kernel_mounts()]
    mounts += [Mount("dev", "/dev"), Mount("tmpfs", "/run")]
    mounts += [Mount("device", str(path), str(path)) for path in sandbox.devices]
    mounts += [Mount("tmpfs", "/opt"), Mount("tmpfs", "/var")]
    scratch = sandbox.scratch
    mounts += [
        Mount("read-only", "/etc/passwd", str(scratch / "etc" / "passwd")),
        Mount("read-only", "/etc/group", str(scratch / "etc" / "group")),
        Mount("writable", TMP, str(scratch / "tmp")),
        Mount("writable", HOME, str(scratch / "home")),
    ]
    if sandbox.model_dir is not None:
        mounts.append(Mount("read-only", MODEL_DIR, str(sandbox.model_dir)))
    shown = {
        path: Mount("read-only", str(path), os.path.realpath(path)) for path in _shown(sandbox)
    }
    hidden = {path: Mount("tmpfs", str(path)) for path in _hidden(sandbox, tuple(shown))}
    # Parents before children, so that what is hidden inside a shown tree is hidden, and what is
    # shown inside a hidden one is shown.
    mounts += [mount for _, mount in sorted((hidden | shown).items(), key=_depth)]
    if sandbox.names:
        mounts.append(Mount("read-only", "/etc/hosts", str(_hosts_file(sandbox))))
    return (*mounts, *sandbox.extra)


def interpreter_paths(python: Path) -> tuple[Path, ...]:
    """Directories that ``python`` needs: its virtual environment's, and its base interpreter's."""
    prefix = python.parent.parent
    found = [prefix]
    config = prefix / "pyvenv.cfg"
    home = python.resolve().parent
    if config.is_file():
        for line in config.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                home = Path(value.strip())
    found += [home.parent, home.resolve().parent, python.resolve().parent.parent]
    return tuple(dict.fromkeys(path for path in found if path != Path("/")))


def try_tool(tool: Tool) -> str | None:
    """Start an interpreter with a bound /opt/ml/model. None when it works, else the reason."""
    binary = _BINARIES[tool]
    if shutil.which(binary) is None:
        return f"{binary} is not installed"
    python = Path(sys.executable)
    check = (
        "import os; assert os.path.exists('/opt/ml/model/probe'); open('/dev/null', 'w').close(); "
        "assert os.getppid() == 1; print('inside')"
    )
    with tempfile.TemporaryDirectory(prefix="ridgeline-probe-") as folder:
        model = Path(folder) / "model"
        model.mkdir()
        (model / "probe").touch()
        sandbox = Sandbox(
            python=python, scratch=Path(folder) / "scratch", model_dir=model, network=False
        )
        command = wrap((str(python), "-I", "-S", "-c", check), sandbox, tool)
        probe = call(command, environment({}, python=python))
        try:
            done = subprocess.run(
                probe.argv,
                executable=probe.program,
                env=probe.environment,
                pass_fds=probe.files,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            probe.close()
    if done.returncode == 0 and done.stdout.strip() == "inside":
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _hosts_file(sandbox: Sandbox) -> Path:
    return sandbox.scratch / "etc" / "hosts"


def _write_hosts(sandbox: Sandbox) -> None:
    """The machine's own names, and those of the sandbox before them."""
    lines = [f"{address} {name}" for name, address in sandbox.names.items()]
    own = Path("/etc/hosts").read_text() if os.path.exists("/etc/hosts") else "127.0.0.1 localhost"
    _hosts_file(sandbox).write_text("\n".join([*lines, own]) + "\n")


def _shown(sandbox: Sandbox) -> list[Path]:
    """Read-only paths that the system mounts do not already show."""
    wanted = (*interpreter_paths(sandbox.python), *sandbox.read_only)
    return [path for path in dict.fromkeys(wanted) if not _under(path, (Path("/usr"),))]


def _hidden(sandbox: Sandbox, shown: Sequence[Path]) -> list[Path]:
    """Hidden paths that would be seen otherwise."""
    visible = (*shown, Path("/usr"))
    return [
        path
        for path in sandbox.hidden
        if path not in shown and _under(path, visible) and path.is_dir()
    ]


def _under(path: Path, parents: Sequence[Path]) -> bool:
    return any(path.is_relative_to(parent) for parent in parents)


def _depth(item: tuple[Path, Mount]) -> int:
    return len(item[0].parts)


def _binary(tool: Tool) -> str:
    """By its whole path: it is run without an environment."""
    name = _BINARIES[tool]
    return shutil.which(name) or name


def _bubblewrap(mounts: Sequence[Mount], sandbox: Sandbox, command: Sequence[str]) -> Command:
    words = ["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--hostname", sandbox.hostname]
    if os.getuid() == 0:
        words += ["--cap-drop", "ALL"]
    else:
        words += ["--unshare-user"]
    if not sandbox.network:
        words += ["--unshare-net"]
    flags = {
        "read-only": "--ro-bind",
        "writable": "--bind",
        "tmpfs": "--tmpfs",
        "symlink": "--symlink",
        "proc": "--proc",
        "dev": "--dev",
        "device": "--dev-bind",
    }
    for mount in mounts:
        words.append(flags[mount.kind])
        if mount.source:
            words.append(mount.source)
        words.append(mount.target)
    words += ["--chdir", sandbox.cwd]
    return Command((_binary("bubblewrap"), "--args", HANDED, "--", *command), tuple(words))


def _unshare(mounts: Sequence[Mount], sandbox: Sandbox, command: Sequence[str]) -> Command:
    argv = [_binary("unshare"), "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    if os.getuid() != 0:
        argv.append("--map-root-user")
    if not sandbox.network:
        argv.append("--net")
    order = json.dumps(
        {
            "root": str(sandbox.scratch / "root"),
            "mounts": [[mount.kind, mount.target, mount.source] for mount in mounts],
            "cwd": sandbox.cwd,
            "hostname": sandbox.hostname,
            "loopback": not sandbox.network,
        }
    )
    (sandbox.scratch / "root").mkdir(parents=True, exist_ok=True)
    argv += ["--", sys.executable, "-I", "-S", str(_ENTER), HANDED, *command]
    return Command(tuple(argv), (order,))
