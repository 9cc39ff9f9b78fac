"""A process whose two outputs are passed on and told apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
            [sys.executable, "-c", SCRIPT],
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
            [sys.executable, "-c", "import os; os.write(2, b'a'); os.write(1, b'b')"],
            dict(os.environ),
            data_bytes=None,
            processes=None,
            file_bytes=None,
        )
        assert script.wait(30) == Ended(0, None)
    assert both == b"ab"
