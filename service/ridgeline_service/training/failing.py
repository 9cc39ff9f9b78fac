"""The FailureReason of a job: whose fault, what happened, what to do, and the last lines.

Text in, text out. The first sentence names the cause, because lists and e-mails show no more.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from ridgeline.errors import LOG_HEADING
from ridgeline_service.endings import (
    is_out_of_memory,
    last_within,
    sentences,
    shortened,
    storable,
    without_frames,
)
from ridgeline_service.placement.machine import in_gib
from ridgeline_service.training import layout
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.order import Order
from ridgeline_service.training.script import Ended

LENGTH = 1024
"""The longest FailureReason of SageMaker."""

_LINE_LENGTH = 240
_LINES_SHOWN = 10
_CAUSE_ROOM = 760
_SAID_ROOM = 560
_ERROR = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Exit|Interrupt|Warning)\b(?:: .*)?$")
_RANK = re.compile(r"^\[rank\d+\]: ")
_USAGE = re.compile(r"^\S+: error: .+")
_LAUNCHER = re.compile(
    r"subprocess\.CalledProcessError|\bChildFailedError\b|^Training Execution failed\."
)
"""What starts a script, such as torchrun or a driver of SDK v3, says so of its child's end."""
_MPI_DRIVER = re.compile(rf'File "{layout.DATA}/sm_drivers/distributed_drivers/mpi_')
"""In a traceback: SDK v3's own, which needs sshd and mpirun beside the module that it names."""
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|File too large")
_KILLED = Ended(None, signal.SIGKILL)
_BY_THE_SYSTEM = "The system killed it, most often because the machine ran out of memory."
_CRASH = "such as a crash in native code."
_USER_CODE = (layout.CODE, f"{layout.INSIDE}/input", layout.MODEL)


def failure_reason(error: JobFailed) -> str:
    """One FailureReason of at most 1,024 characters."""
    blamed = f"{error.cause.blames}: {sentences(error.message, error.hint or error.cause.hint)}"
    blamed = storable(blamed)
    lines = [shortened(line, _LINE_LENGTH) for line in without_frames(error.log, _USER_CODE)]
    if not lines:
        return shortened(blamed, LENGTH)
    head = shortened(blamed, _CAUSE_ROOM)
    lines = last_within(lines[-_LINES_SHOWN:], LENGTH - len(head) - len(LOG_HEADING))
    return head + LOG_HEADING + "\n".join(lines) if lines else head


def script_failed(
    order: Order,
    ended: Ended,
    command: Sequence[str],
    log: Sequence[str],
    said: str,
    *,
    errors: Sequence[str],
) -> JobFailed:
    """Of a script that failed; ``said`` is what it wrote to its failure file, which has the first
    word, unless it tells no more than that a child failed. ``errors`` are the lines of ``log`` that
    came by standard error."""
    if _LAUNCHER.search(said):
        said = ""
    cause = _cause(ended, log, said)
    if said:
        message = f"{shortened(said, _SAID_ROOM)}, {ended.words}"
        return JobFailed(cause, message, log, _hint(order, cause, ended, said, log))
    error = last_error(log, errors)
    message = f"ExecuteUserScriptError: {ended.words}"
    message += f', ErrorMessage "{shortened(error, 300)}"'
    message += f', Command "{shortened(" ".join(command), 200)}"'
    return JobFailed(cause, message, log, _hint(order, cause, ended, error, log))


def last_error(log: Sequence[str], errors: Sequence[str]) -> str:
    """The line that names the error: the last of ``errors`` that looks like one, or of the whole
    log where a launcher told its child's; else the last of ``errors``, which may be none, as with
    SageMaker's toolkit. The script's own words go before those of what started it."""
    found, named = _named(errors), _named(log)
    own, child = ([line for line in each if not _LAUNCHER.search(line)] for each in (found, named))
    return (own or child or found or named or _plain(errors) or [""])[-1]


def _named(lines: Sequence[str]) -> list[str]:
    return [line for line in _plain(lines) if _ERROR.match(line) or _USAGE.match(line)]


def _plain(lines: Sequence[str]) -> list[str]:
    return [_RANK.sub("", line.strip()) for line in lines]


def _cause(ended: Ended, log: Sequence[str], said: str) -> Cause:
    if is_out_of_memory(said, log) or ended == _KILLED:
        return Cause.OUT_OF_MEMORY
    if _NO_SPACE.search(said) or any(_NO_SPACE.search(line) for line in log):
        return Cause.DISK_FULL
    return Cause.SCRIPT_FAILED


def _hint(order: Order, cause: Cause, ended: Ended, error: str, log: Sequence[str]) -> str:
    if cause is Cause.OUT_OF_MEMORY:
        limit = in_gib(order.confinement.memory_bytes)
        how = f"Each process of this job may use {limit}."
        return f"{_BY_THE_SYSTEM if ended == _KILLED else how} {cause.hint}"
    if cause is Cause.DISK_FULL:
        return cause.hint
    if any(_MPI_DRIVER.search(line) for line in log):
        return "MPI does not run here. Use distributed=Torchrun() of the ModelTrainer."
    module = re.search(r"No module named '([\w.]+)'", error)
    if module:
        name = module[1].partition(".")[0]
        if order.processing is not None:
            return (
                f"Install {name} from the script (pip install), send requirements.txt in the "
                "source_dir of a FrameworkProcessor, or correct the import."
            )
        return f"Add {name} to requirements.txt in source_dir, or correct the import."
    if order.processing is not None and "can't open file" in error:
        return "Correct ContainerEntrypoint, or LocalPath of the input that brings the script."
    missing = re.search(rf"'({layout.DATA}/([^/']+)[^']*)'", error)
    if missing and "FileNotFoundError" in error:
        names = ", ".join(channel.name for channel in order.channels) or "none"
        if missing[2] not in {channel.name for channel in order.channels}:
            return f"The job has no channel {missing[2]!r}; its channels: {names}."
        return f"Channel {missing[2]!r} was downloaded and holds no such file."
    if _USAGE.match(error):
        return "Hyperparameters become arguments of the script: correct their names and values."
    if ended.code == 127 or error.startswith("bwrap: execvp"):
        return "Give sagemaker_program, or a ContainerEntrypoint whose program is there."
    return "" if ended.signal is None else _signal_hint(ended)


def _signal_hint(ended: Ended) -> str:
    killed = ended.signal == signal.SIGKILL
    memory = Cause.OUT_OF_MEMORY.hint
    if ended.code is not None:
        by = f"If the script did not exit with {ended.code} itself, a signal ended it, "
        why = f"most often as the machine ran out of memory. {memory}"
        return by + (why if killed else _CRASH)
    if killed:
        return f"{_BY_THE_SYSTEM} {memory}"
    return f"A signal from inside the job ended it, {_CRASH}"
