"""A command of ours that runs: its lines as they come, and the result or the error among them."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.children import child_lines
from ridgeline_service.control.command_jobs.life import Cancelled, CommandFailed, checking
from ridgeline_service.endings import sentences, shortened

_SAID = 20_000
_REASON = 200
_END_S = 1.0
"""A command ends with its output, but for one that closes it and goes on."""

log = logging.getLogger(__name__)


def followed(process: subprocess.Popen[bytes], cancelled: Cancelled) -> Any:
    """The result that the command prints. Raises CommandFailed and CommandCancelled; what a command
    without a result said is logged."""
    said = ""
    for line in child_lines(process, checking(cancelled)):
        message = _message(line)
        if "error" in message:
            error: Mapping[str, str] = message["error"]
            raise CommandFailed(f"ClientError: {sentences(error['message'], error['hint'])}")
        if "result" in message:
            return message["result"]
        if not message:
            said = (said + line.decode(errors="replace") + "\n")[-_SAID:]
    log.error("a command ended without a result: %s\n%s", process.args, said)
    last = shortened(said.rstrip().rpartition("\n")[2], _REASON)
    raise CommandFailed(sentences(f"InternalServerError: the command ended{_how(process)}", last))


def _message(line: bytes) -> Mapping[str, Any]:
    """What our commands print; empty for what a library or a model does."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _how(process: subprocess.Popen[bytes]) -> str:
    try:
        status = process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return ""
    return f" by signal {-status}" if status < 0 else f" with exit status {status}"
