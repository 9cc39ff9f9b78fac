"""A process whose two outputs are passed on and told apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ridgeline_service.runtime.shim import Command
from ridgeline_service.training.script import Ended, Script

SCRIPT = """
import os, sys
os.write(1, b"first\\n")
os.write(2, b"second\\n")
for number in range(40):
    os.write(1, b"x" * 65_535 + b"\\n")
    os.write(2, b"warning\\n")
sys.exit(3)
"""


def test_both_outputs_come_whole_and_apart(tmp_path: Path) -> None:
    out, errors = bytearray(), bytearray()
    with (tmp_path / "log").open("wb") as log:
        script = Script(out.extend, log.fileno(), take_errors=errors.extend)
        script.start(
            Command((sys.executable, "-c", SCRIPT)),
            dict(os.environ),
            data_bytes=None,
            processes=None,
            file_bytes=None,
        )
        assert script.wait(30) == Ended(3, None)
    assert errors.split() == [b"second", *[b"warning"] * 40]
    assert out.startswith(b"first\n")
    assert len(out) == 6 + 40 * 65_536
    assert (tmp_path / "log").stat().st_size == len(out) + len(errors)


def test_without_a_listener_both_are_one(tmp_path: Path) -> None:
    both = bytearray()
    with (tmp_path / "log").open("wb") as log:
        script = Script(both.extend, log.fileno())
        script.start(
            Command((sys.executable, "-c", "import os; os.write(2, b'a'); os.write(1, b'b')")),
            dict(os.environ),
            data_bytes=None,
            processes=None,
            file_bytes=None,
        )
        assert script.wait(30) == Ended(0, None)
    assert both == b"ab"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (255, "ExitCode 255"),
        (193, "ExitCode 193"),
        (160, "ExitCode 160"),
        (128, "ExitCode 128"),
        (130, "ExitCode 130 (or Signal SIGINT)"),
        (137, "ExitCode 137 (or Signal SIGKILL)"),
        (168, "ExitCode 168 (or Signal SIGRT 40)"),
    ],
)
def test_an_exit_code_is_told_whether_or_not_it_may_have_been_a_signal(
    status: int, words: str
) -> None:
    """A sandbox tool ends with 128 + the number of a signal that ended the script."""
    assert ended_by(f"exit {status}").words == words


def test_a_signal_that_ended_all_of_the_sandbox_is_certain() -> None:
    assert ended_by("kill -KILL $$") == Ended(None, 9)
    assert ended_by("kill -KILL $$").words == "Signal SIGKILL"
    assert ended_by("kill -35 $$").words == "Signal SIGRT 35"


def test_a_script_that_signals_its_process_group_ends_itself_alone() -> None:
    """One that would not do so would end these tests."""
    assert ended_by("kill -KILL 0") == Ended(None, 9)
    assert ended_by("kill -TERM 0") == Ended(None, 15)


def ended_by(line: str) -> Ended:
    script = Script(lambda data: None)
    script.start(
        Command(("bash", "-c", line)), {}, data_bytes=None, processes=None, file_bytes=None
    )
    ended = script.wait(30)
    assert ended is not None
    return ended
