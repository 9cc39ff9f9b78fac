"""The ends of processes are told: of any, once, at once."""

from __future__ import annotations

import queue
import subprocess
import sys

from ridgeline_service.runtime.ends import Ends


def test_the_end_of_each_process_is_told_once() -> None:
    ends, told = Ends(), queue.Queue[str]()
    waits = [sys.executable, "-c", "input()"]
    children = {name: subprocess.Popen(waits, stdin=subprocess.PIPE) for name in ("a", "b")}
    for name, child in children.items():
        for _ in range(3):
            assert ends.tell(child.pid, lambda name=name: told.put(name))
    for name in ("b", "a"):
        children[name].kill()
        assert told.get(timeout=10) == name
    for child in children.values():
        child.communicate()
        assert not ends.tell(child.pid, lambda: told.put("again"))
    assert told.empty()


def test_a_listener_that_fails_does_not_silence_the_others() -> None:
    ends, told = Ends(), queue.Queue[str]()

    def fails() -> None:
        told.put("fails")
        raise RuntimeError("a bug")

    for ended in (fails, lambda: told.put("hears")):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert ends.tell(child.pid, ended)
        child.communicate()
        told.get(timeout=10)
