"""FastFile channels: files that are fetched when they are opened, or before where that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.objects.reading import S3Failed, S3Object
from ridgeline_service.training import fuse
from ridgeline_service.training.lazy import LazyChannels
from ridgeline_service.training.order import Channel

CHANNEL = Channel("train", "s3://b/data", mode="FastFile")
AS_ROOT = pytest.mark.skipif(
    os.getuid() != 0 or not os.path.exists(fuse.DEVICE), reason="only root may mount a file system"
)

# In a process of its own: a thread cannot give its mounts back.
SCRIPT = """
import json, subprocess, sys, threading
from pathlib import Path

from ridgeline_service.objects.reading import S3Failed, S3Object
from ridgeline_service.training.lazy import LazyChannels
from ridgeline_service.training.order import Channel

objects = {f"data/many/{number:03d}": b"x" * number for number in range(300)}
objects |= {"data/a.txt": b"hello", "data/sub/big.bin": bytes(range(256)) * 20000, "data/bad": b"?"}
fetched, said = [], []


class Reader:
    def list(self, uri):
        return [S3Object(key, len(body), "e") for key, body in sorted(objects.items())]

    def download(self, bucket, key, into, took):
        fetched.append(key)
        if key == "data/bad":
            raise S3Failed(key, "the store is away", retry=True)
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_bytes(objects[key])


where, kept = Path(sys.argv[1]) / "train", Path(sys.argv[1]) / "kept"
channel = Channel("train", "s3://b/data", mode="FastFile")
assert LazyChannels(Reader(), kept, said.append).mount(channel, where, host=0, hosts=1)
listed = sorted(str(path.relative_to(where)) for path in where.rglob("*") if path.is_file())
before = list(fetched)
same = [(where / "sub/big.bin").read_bytes() == objects["data/sub/big.bin"] for _ in range(2)]
readers = [threading.Thread(target=(where / "a.txt").read_bytes) for _ in range(8)]
for reader in readers:
    reader.start()
for reader in readers:
    reader.join()
child = subprocess.run(["cat", str(where / "a.txt")], capture_output=True, text=True).stdout
failures = {}
for name, mode in (("bad", "rb"), ("none", "rb"), ("a.txt", "ab"), ("sub", "rb")):
    try:
        open(where / name, mode)
    except OSError as error:
        failures[name] = error.errno
sizes = sum(path.stat().st_size for path in (where / "many").iterdir())
print(json.dumps([listed, before, same, sorted(fetched), child, failures, sizes, said]))
"""


@AS_ROOT
def test_files_are_fetched_once_when_they_are_opened(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    listed, before, same, fetched, child, failures, sizes, said = json.loads(done.stdout)
    assert len(listed) == 303
    assert before == []
    assert same == [True, True]
    assert fetched == ["data/a.txt", "data/bad", "data/sub/big.bin"]
    assert child == "hello"
    assert failures == {"bad": 5, "none": 2, "a.txt": 30, "sub": 21}
    assert sizes == sum(range(300))
    assert said == ["Channel 'train': the store is away"]
    assert list((tmp_path / "train").iterdir()) == [], "nobody else sees it, and nothing is left"


class _Reader:
    def __init__(self, found: list[S3Object]) -> None:
        self.found = found

    def list(self, uri: str) -> list[S3Object]:
        if not self.found:
            raise S3Failed(uri, "There is no bucket b.", absent=True)
        return self.found


def test_where_nothing_can_be_mounted_the_log_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError(1, "unshare: Operation not permitted")

    monkeypatch.setattr(fuse, "enter_namespace", refused)
    said: list[str] = []
    reader: Any = _Reader([S3Object("data/a", 1, "e")])
    lazy = LazyChannels(reader, tmp_path / "kept", said.append)
    for _ in range(2):
        assert not lazy.mount(CHANNEL, tmp_path / "train", host=0, hosts=1)
    assert len(said) == 1
    assert "downloaded before the start: [Errno 1] unshare" in said[0]
    assert not lazy.mount(Channel("c", "s3://b/data"), tmp_path / "c", host=0, hosts=1)
