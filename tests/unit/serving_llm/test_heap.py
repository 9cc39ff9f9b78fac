"""A replica's threads allocate from one heap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, sys, threading
from ridgeline_service.serving.llm.__main__ import share_one_heap

if sys.argv[2] == "shared":
    share_one_heap()
libc = ctypes.CDLL(None)
together = threading.Barrier(4)

def allocate():
    together.wait()
    held = bytearray(10_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of glibc")
def test_threads_share_one_heap(tmp_path: Path) -> None:
    def heaps(how: str) -> int:
        out = tmp_path / how
        subprocess.run([sys.executable, "-c", SCRIPT, str(out), how], check=True)
        return out.read_text().count("<heap nr=")

    assert heaps("shared") == 1
    assert heaps("left alone") > 1
