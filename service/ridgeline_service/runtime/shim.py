"""Parent of one model server: starts it, writes its log, passes signals on, records its end.

    shim.py FOLDER READY_FD        FOLDER holds spec.json (mode 0600), written by the launcher

Standard library only and run by path, so that it starts in milliseconds and needs no environment.
It lives in a session of its own and outlives the control plane. The server cannot outlive it: the
kernel kills its direct child when the shim dies, and a sandbox's PID namespace goes with that.

SIGTERM asks the server to finish; after the grace time, or at once by SIGUSR1, everything in it
is killed. Output is copied line by line as ``{"t": ms since the epoch, "m": line}``: what the
server wrote is in the file before its end is recorded, and a slow disk slows the server down
instead of losing lines. It knows nothing of models, routes or health.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
MAX_LINE = 256 * 1024  # bytes of one log event, as in CloudWatch Logs
READ_SIZE = 1 << 16
TICK_S = 0.05
OOM_SCORE = 300  # of 1000: as if it held so many thousandths of the machine's memory more
HANDED = "{handed}"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
DRAIN_S = 2.0  # how long a process that escaped may hold the pipe open after the server's end


@dataclass(frozen=True)
class Command:
    """What to execute. A sandbox tool reads its ``words`` from the file whose number takes the
    place of HANDED in ``argv``; where there are none, ``argv`` is no such tool."""

    argv: tuple[str, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A command as ``exec`` takes it: ``program`` with ``argv``. ``files`` must be open in what
    executes it; whoever started it closes them."""

    program: str
    argv: list[str]
    environment: dict[str, str]
    files: tuple[int, ...]

    def close(self) -> None:
        for file in self.files:
            os.close(file)


def call(command: Command, environment: Mapping[str, str]) -> Call:
    """Its environment is for what runs inside a sandbox. The tool that makes the sandbox gets none
    of it: a tool runs outside, and a user's LD_PRELOAD or PATH would run outside with it.

    Raises ValueError for what no variable can hold."""
    if not command.words:
        return Call(command.argv[0], list(command.argv), dict(environment), ())
    words = list(command.words)
    for name, value in environment.items():
        if not name or "=" in name:
            raise ValueError(f"illegal environment variable name {name!r}")
        words += ["--setenv", name, value]
    parts = [os.fsencode(word) for word in words]
    if any(b"\0" in part for part in parts):
        raise ValueError("embedded null byte")
    files = [_in_memory(b"".join(part + b"\0" for part in parts))]
    argv = list(command.argv)
    argv[argv.index(HANDED)] = str(files[0])
    program = argv[0]
    if os.getuid() == 0:
        with open(program, "rb") as binary:
            files.append(_in_memory(binary.read()))
        program = f"/proc/self/fd/{files[1]}"
    return Call(program, argv, {}, tuple(files))


def _in_memory(data: bytes) -> int:
    """A file that nobody can change any more.

    A sandbox tool is the first process inside, and /proc leads from there to the file that it was
    executed from, which root may write: the next sandbox would run what one left there, outside."""
    file = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(file, "wb", closefd=False) as stream:
        stream.write(data)
    os.lseek(file, 0, os.SEEK_SET)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    return file


@dataclass(frozen=True)
class Spec:
    """What the launcher wrote. ``command`` in a sandbox is the child of the first process of its
    PID namespace, and not ours."""

    id: str
    token: str
    port: int
    command: Command
    environment: dict[str, str]
    cwd: str
    listen: bool
    data_bytes: int | None
    processes: int | None
    grace_s: float
    log_file: str
    log_limit_bytes: int

    @property
    def namespace(self) -> bool:
        return bool(self.command.words)


def main(folder: str, ready_fd: int) -> int:
    wakeup = _catch_signals()
    spec = read_spec(f"{folder}/spec.json")
    found = os.stat(folder)
    record = {
        "place": f"{found.st_dev}:{found.st_ino}",  # as ``ridgeline_service.paths`` has it
        "id": spec.id,
        "pid": os.getpid(),
        "start_time": start_time(os.getpid()),
        "token": spec.token,
        "port": spec.port,
    }
    write_private(f"{folder}/process.json", record)
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    log = Log(spec.log_file, spec.log_limit_bytes)
    try:
        listener = _listen(spec.port) if spec.listen else None
        output, child = _start(spec, listener)
    except OSError as error:
        log.lines([f"The model server could not be started: {error}".encode()])
        _record_exit(folder, 127, namespace=False)
        return 1
    if listener is not None:
        listener.close()
    status = _watch(spec, child, output, wakeup, log)
    log.close()
    _record_exit(folder, status, namespace=spec.namespace)
    return 0


def read_spec(path: str) -> Spec:
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    command = Command(tuple(raw["command"]["argv"]), tuple(raw["command"]["words"]))
    return Spec(**{**raw, "command": command})


def start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot; with the pid it names one process for good."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def write_private(path: str, value: dict[str, object]) -> None:
    handle = os.open(f"{path}.new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


class Log:
    """The stream's file. A full disk or a full quota drops lines and says how many; a file that
    somebody removed is begun anew."""

    def __init__(self, path: str, limit_bytes: int) -> None:
        self._path = path
        self._limit = limit_bytes
        self._rest = b""
        self._lost = 0
        self._begin()

    def _begin(self) -> None:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        self._file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._left = self._limit - os.fstat(self._file).st_size
        self._full = False
        self._torn = False

    def _begin_if_removed(self) -> None:
        if os.fstat(self._file).st_nlink == 0:
            removed = self._file
            try:
                self._begin()
            except OSError:  # no room for another
                return
            os.close(removed)

    def feed(self, data: bytes) -> None:
        """Take output as it came. A carriage return ends a line too: progress bars use it."""
        text = (self._rest + data).replace(b"\r", b"\n")
        *complete, self._rest = text.split(b"\n")
        *parts, self._rest = split_line(self._rest)
        self.lines(complete + parts)

    def lines(self, lines: list[bytes]) -> None:
        now = int(time.time() * 1000)
        events = [
            json.dumps({"t": now, "m": part.decode("utf-8", "replace")}, ensure_ascii=False)
            for line in lines
            if line
            for part in split_line(line)
        ]
        if events:
            self._write(("\n".join(events) + "\n").encode(), len(events), now)

    def close(self) -> None:
        """Write what had no line end yet, and what was lost."""
        self.lines([self._rest])
        self._rest = b""
        if self._lost:
            self._append(_notice(int(time.time() * 1000), f"[{self._lost} lines were not kept]"))
        os.close(self._file)

    def _write(self, data: bytes, count: int, now: int) -> None:
        self._begin_if_removed()
        if self._full or len(data) > self._left:
            if not self._full:
                self._full = True
                size = self._limit >> 20
                text = f"[log stream is full at {size} MiB: nothing more is kept]"
                self._append(_notice(now, text))
            self._lost += count
        elif self._append(data):
            self._left -= len(data)
        else:
            self._lost += count

    def _append(self, data: bytes) -> bool:
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._file, view) :]
            except OSError:  # disk full or quota: the server must not stop for its log
                self._torn = self._torn or len(view) < len(data)
                return False
        self._torn = False
        return True


def _notice(now: int, text: str) -> bytes:
    return (json.dumps({"t": now, "m": text}) + "\n").encode()


def split_line(line: bytes) -> list[bytes]:
    """Parts of at most MAX_LINE bytes, cut between characters."""
    parts = []
    while len(line) > MAX_LINE:
        cut = MAX_LINE
        while cut > MAX_LINE - 4 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        parts.append(line[:cut])
        line = line[cut:]
    parts.append(line)
    return parts


def children(pid: int) -> list[int]:
    """Direct children of a process; none if it is gone."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _catch_signals() -> int:
    """Signals become bytes in a pipe that the loop reads, so nothing runs between two lines."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in CAUGHT:
        signal.signal(number, lambda *_: None)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    return reader


def _listen(port: int) -> socket.socket:
    """The server's socket, made out here: a server without network can still be reached by it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    return listener


def _start(spec: Spec, listener: socket.socket | None) -> tuple[int, int]:
    """Fork and execute. Returns the read end of the output pipe and the pid."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    environment = dict(spec.environment)
    if listener is not None:
        os.set_inheritable(listener.fileno(), True)
        environment["RIDGELINE_LISTEN_FD"] = str(listener.fileno())
    reader, writer = os.pipe2(os.O_CLOEXEC)
    shim = os.getpid()
    child = os.fork()
    if child == 0:
        _become(spec, environment, writer, shim, libc)
    os.close(writer)
    os.set_blocking(reader, False)
    return reader, child


def _become(
    spec: Spec, environment: dict[str, str], output: int, shim: int, libc: ctypes.CDLL
) -> NoReturn:
    """In the child: never returns, and never raises into the shim's code."""
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != shim:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in CAUGHT + IGNORED:
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        confine(spec.data_bytes, spec.processes)
        _die_first()
        os.chdir(spec.cwd)
        server = call(spec.command, environment)
        for file in server.files[:1]:  # the words; a program is executed from an open file
            os.set_inheritable(file, True)
        os.execvpe(server.program, server.argv, server.environment)  # noqa: S606 (no shell)
    except BaseException as error:  # noqa: BLE001 (a fork of the shim must end here)
        os.write(2, f"{spec.command.argv[0]}: {error}\n".encode())
        os._exit(127)


def confine(data_bytes: int | None, processes: int | None, file_bytes: int | None = None) -> None:
    """Limits of the calling process and of what it becomes and starts; None leaves one as it is."""
    _limit(resource.RLIMIT_CORE, 0)
    if data_bytes is not None:
        _limit(resource.RLIMIT_DATA, data_bytes)
    if processes is not None:
        _limit(resource.RLIMIT_NPROC, processes)
    if file_bytes is not None:
        _limit(resource.RLIMIT_FSIZE, file_bytes)


def _die_first() -> None:
    """Where the machine's memory ends, the kernel takes this process and its children before the
    service, which would take all endpoints along; unless they ask for something else."""
    with suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+b", 0) as file:
        file.write(b"%d" % min(1000, int(file.read()) + OOM_SCORE))


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bound, bound))


def _watch(spec: Spec, child: int, output: int, wakeup: int, log: Log) -> int:
    """Copy output and obey signals until the server has ended. Returns its wait status."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    stopping = False
    delivered = False
    kill_at = float("inf")
    reading = True
    while True:
        wait_ms = int(TICK_S * 1000) if stopping else None
        for handle, _ in poll.poll(wait_ms):
            if handle == output:
                reading = _copy(output, log)
                if not reading:
                    poll.unregister(output)
            else:
                caught = os.read(wakeup, 512)
                if signal.SIGUSR1 in caught:
                    stopping, kill_at = True, 0.0
                elif signal.SIGTERM in caught:
                    # Asked again, the server is told again: the first may have come before it
                    # could hear.
                    delivered = False
                    if not stopping:
                        stopping, kill_at = True, time.monotonic() + spec.grace_s
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _kill_strays()
            if reading:
                _drain(output, log)
            return os.waitstatus_to_exitcode(status)
        if stopping and time.monotonic() >= kill_at:
            _kill_group(child)
            kill_at = float("inf")
            delivered = True
        elif stopping and not delivered:
            delivered = ask_to_stop(child, namespace=spec.namespace)


def _copy(output: int, log: Log) -> bool:
    """One read. False at the end of the stream."""
    try:
        data = os.read(output, READ_SIZE)
    except BlockingIOError:
        return True
    log.feed(data)
    return bool(data)


def _drain(output: int, log: Log) -> None:
    deadline = time.monotonic() + DRAIN_S
    poll = select.poll()
    poll.register(output, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(int(left * 1000) + 1) and not _copy(output, log):
            return


def ask_to_stop(child: int, *, namespace: bool) -> bool:
    """SIGTERM to the server itself: a sandbox tool would die of it and take the server along.

    False while the sandbox is still being built and there is no server yet.
    """
    targets = [child]
    if namespace:
        targets = [server for first in children(child) for server in children(first)]
    for pid in targets:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return bool(targets)


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _kill_strays() -> None:
    """End what the server left behind: as subreaper the shim has inherited it."""
    while strays := children(os.getpid()):
        for pid in strays:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def ending(status: int, *, namespace: bool) -> tuple[int | None, int | None]:
    """The exit code, or the signal, of a process whose ``status`` is negative for a signal.

    Both where a sandbox tool ends with 128 + the number of a signal: it reaps what it runs, and
    says so of a signal as of an exit code of that value.
    """
    if status < 0:
        return None, -status
    told = status - 128
    return status, told if namespace and told in signal.valid_signals() else None


def signal_name(number: int) -> str:
    """Most signals for real-time use have no name of their own."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"SIGRT {number}"


def _record_exit(folder: str, status: int, *, namespace: bool) -> None:
    code, by = ending(status, namespace=namespace)
    write_private(f"{folder}/exit.json", {"code": code, "signal": by, "at": time.time()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
