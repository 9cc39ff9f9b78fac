"""First process inside ``unshare``: builds the sandbox's root, gives up every privilege, runs one
command and reaps for it. Used where bubblewrap is absent; standard library only, run by path.

    enter.py FILE COMMAND ...

FILE is the number of an open file of words that end with NUL: the order, which is
'{"root": DIR, "mounts": [[kind, target, source], ...], "cwd": DIR, "hostname": NAME,
"loopback": bool}', then --setenv NAME VALUE for each variable of the command.

It is PID 1 of its namespace, so when it ends the kernel ends everything it started. The exit
status is the command's, or 128 + the signal that ended it. What is mounted, it is told; it knows
nothing of models, users or the service.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION_3 = 0x20080522
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 1, 64
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

_libc = ctypes.CDLL(None, use_errno=True)


def main(file: int, command: list[str]) -> NoReturn:
    with open(file, "rb") as stream:
        words = [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]
    wanted = json.loads(words[0])
    environment = dict(zip(words[2::3], words[3::3], strict=True))
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if wanted["loopback"]:
        _raise_loopback()
    socket.sethostname(wanted["hostname"])
    _build(wanted["root"], wanted["mounts"])
    os.chdir(wanted["cwd"])
    _drop_privileges()
    _run(command, environment)


def _build(root: str, mounts: list[list[str]]) -> None:
    """Mount everything under ``root`` and make that the root of this namespace."""
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV)
    for kind, target, source in mounts:
        _place(kind, root + target, source)
    machine = os.uname().machine
    os.mkdir(f"{root}/.old")
    pivot = _libc.syscall(SYS_PIVOT_ROOT[machine], root.encode(), f"{root}/.old".encode())
    _check(pivot, f"pivot_root {root}")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", MNT_DETACH), "umount old root")
    os.rmdir("/.old")


def _place(kind: str, path: str, source: str) -> None:
    if kind == "symlink":
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(source, path)
    elif kind == "tmpfs":
        os.makedirs(path, exist_ok=True)
        _mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV)
    elif kind == "proc":
        os.makedirs(path, exist_ok=True)
        _mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    elif kind == "dev":
        _devices(path)
    else:
        _bind(path, source, read_only=kind == "read-only")


def _bind(path: str, source: str, *, read_only: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, path, "", MS_BIND | MS_REC)
    if not read_only:
        return
    # A recursive bind keeps the flags of what is mounted below, so each one is made read-only.
    # Flags that came from outside are locked in a user namespace and have to be repeated.
    for point in _mount_points(path):
        flags = os.statvfs(point).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("none", point, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | flags)


def _mount_points(path: str) -> list[str]:
    """The mount points at and below ``path``, without those that a later mount hides."""
    found = {path: None}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = _unescape(line.split(" ")[4])
            if point.startswith(path + "/") and os.path.ismount(point):
                found[point] = None
    return list(found)


def _unescape(name: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        name = name.replace(code, character)
    return name


def _devices(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    # Nobody's but its owner's: a file of another user in a folder of everybody's cannot be written.
    _mount("tmpfs", path, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        os.close(os.open(f"{path}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        _mount(f"/dev/{name}", f"{path}/{name}", "", MS_BIND)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        os.symlink(f"/proc/self/fd/{number}", f"{path}/{name}")
    os.symlink("/proc/self/fd", f"{path}/fd")
    os.mkdir(f"{path}/shm")
    os.chmod(f"{path}/shm", 0o1777)  # noqa: S103 (as everywhere; whatever the umask)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(handle, SIOCSIFFLAGS, request)


def _drop_privileges() -> None:
    """No capability in any set, and none to be gained by executing a file."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for number in range(last + 1):
        _check(_libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"drop capability {number}")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    nothing = bytes(24)
    _check(_libc.syscall(SYS_CAPSET[os.uname().machine], header, nothing), "capset")


def _run(command: list[str], environment: dict[str, str]) -> NoReturn:
    child = os.fork()
    if child == 0:
        try:
            os.execvpe(command[0], command, environment)  # noqa: S606 (no shell is wanted)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            os._exit(127)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _mount(source: str, target: str, kind: str, flags: int, options: str | None = None) -> None:
    data = None if options is None else options.encode()
    done = _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, data)
    _check(done, f"mount {kind or source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
