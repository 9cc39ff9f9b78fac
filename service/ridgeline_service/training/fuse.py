"""A read-only file system of files that are fetched when they are first opened, served from this
process over the kernel's FUSE protocol (include/uapi/linux/fuse.h, version 7.31 and later).

It is mounted in a mount namespace that this process enters for that, so that nobody else sees it
and nothing is left of it when this process and what it started have ended. Knows neither S3 nor
jobs: ``fetch`` brings a file to the disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

DEVICE = "/dev/fuse"
WORKERS = 4

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REC, _MS_SLAVE = 1, 2, 4, 1 << 14, 1 << 19
_MAX_READ = 1 << 17
_REQUEST_SIZE = _MAX_READ + 4096
_VALID_S = 3600  # nothing changes while the file system is there

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _ACCESS = 25, 26, 27, 28, 29, 34
_INTERRUPT, _DESTROY, _BATCH_FORGET = 36, 38, 42
_UNANSWERED = frozenset({_FORGET, _INTERRUPT, _BATCH_FORGET})
_KEEP_CACHE = 2

_HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")  # its last number, the flags, is packed as 0
_READ_IN = struct.Struct("<QQI")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class LazyFile:
    """``fetch`` puts the content at ``kept``, of which ``size`` bytes are promised; it raises
    OSError where it cannot."""

    size: int
    kept: Path
    fetch: Callable[[], None]


@dataclass
class _Node:
    number: int
    file: LazyFile | None = None
    children: dict[str, _Node] = field(default_factory=dict)
    fetching: threading.Lock = field(default_factory=threading.Lock)
    handle: int = -1


def enter_namespace() -> None:
    """Give the calling thread, and what it starts from now on, mounts of its own. Raises OSError
    where that is not allowed."""
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _checked(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount")


class LazyFiles:
    """One file system of ``files`` by their relative paths. It ends with this process."""

    def __init__(self, files: Mapping[str, LazyFile]) -> None:
        self._nodes: list[_Node] = []
        self._device = -1
        root = self._add()
        for path, file in files.items():
            *parents, name = PurePosixPath(path).parts
            node = root
            for parent in parents:
                node = node.children.get(parent) or self._add(node, parent)
            self._add(node, name, file)

    def mount(self, where: Path) -> None:
        """At an empty folder, for the calling thread's namespace. Raises OSError."""
        self._device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        options = (
            f"fd={self._device},rootmode={stat.S_IFDIR:o},user_id={os.getuid()},"
            f"group_id={os.getgid()},allow_other,max_read={_MAX_READ}"
        )
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
        try:
            _checked(
                _libc.mount(b"s3", os.fsencode(where), b"fuse", flags, options.encode()), "mount"
            )
        except OSError:
            os.close(self._device)
            raise
        for number in range(WORKERS):
            threading.Thread(target=self._serve, name=f"fuse-{number}", daemon=True).start()

    def _add(
        self, parent: _Node | None = None, name: str = "", file: LazyFile | None = None
    ) -> _Node:
        node = _Node(len(self._nodes) + 1, file)
        self._nodes.append(node)
        if parent is not None:
            parent.children[name] = node
        return node

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _REQUEST_SIZE)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue  # the request was interrupted before it was read
                return  # unmounted
            _, opcode, unique, number, *_ = _HEADER.unpack_from(request)
            if opcode in _UNANSWERED:
                continue
            try:
                code, body = 0, self._answer(opcode, number, request[_HEADER.size :])
            except OSError as failure:
                code, body = failure.errno or errno.EIO, b""
            self._reply(_REPLY.pack(_REPLY.size + len(body), -code, unique) + body)

    def _reply(self, reply: bytes) -> None:
        try:
            os.write(self._device, reply)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # nobody waits for it any more
                raise

    def _answer(self, opcode: int, number: int, body: bytes) -> bytes:
        if opcode == _INIT:
            major, minor, read_ahead, _ = struct.unpack_from("<IIII", body)
            if major < 7 or (major == 7 and minor < 31):
                raise OSError(errno.EPROTO, "the kernel is too old")
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, read_ahead, 0, 12, 9, 4096, 1, 0, 0, 0)
        if opcode in (_RELEASE, _RELEASEDIR, _FLUSH, _DESTROY, _ACCESS):
            return b""
        if opcode == _STATFS:
            return struct.pack("<QQQQQIII28x", 0, 0, 0, len(self._nodes), 0, 4096, 255, 4096)
        node = self._nodes[number - 1]
        if opcode == _LOOKUP:
            name = os.fsdecode(body.split(b"\0", 1)[0])
            found = node.children.get(name)
            if found is None:
                raise OSError(errno.ENOENT, name)
            return struct.pack("<QQQQII", found.number, 0, _VALID_S, _VALID_S, 0, 0) + _attr(found)
        if opcode == _GETATTR:
            return struct.pack("<QII", _VALID_S, 0, 0) + _attr(node)
        if opcode == _OPEN:
            self._open(node)
            return struct.pack("<QII", node.number, _KEEP_CACHE, 0)
        if opcode == _OPENDIR:
            return struct.pack("<QII", node.number, 0, 0)
        if opcode == _READ:
            _, offset, size = _READ_IN.unpack_from(body)
            return os.pread(node.handle, size, offset)
        if opcode == _READDIR:
            _, offset, size = _READ_IN.unpack_from(body)
            return _entries(node, offset, size)
        raise OSError(errno.ENOSYS, "not supported")

    def _open(self, node: _Node) -> None:
        """The first one to open a file fetches it; others that open it wait for that."""
        if node.file is None:
            raise OSError(errno.EISDIR, "a folder")
        with node.fetching:
            if node.handle < 0:
                node.file.fetch()
                node.handle = os.open(node.file.kept, os.O_RDONLY | os.O_CLOEXEC)


def _attr(node: _Node) -> bytes:
    file = node.file
    size = 0 if file is None else file.size
    mode = stat.S_IFDIR | 0o555 if file is None else stat.S_IFREG | 0o444
    links = 2 if file is None else 1
    uid, gid = os.getuid(), os.getgid()
    blocks = -(-size // 512)
    times = (0, 0, 0)
    return _ATTRIBUTES.pack(
        node.number, size, blocks, *times, *times, mode, links, uid, gid, 0, 4096, 0
    )


def _entries(node: _Node, offset: int, size: int) -> bytes:
    """Directory entries from number ``offset`` on, as many as fit."""
    found = b""
    for position, (name, child) in enumerate(node.children.items(), start=1):
        if position <= offset:
            continue
        raw = os.fsencode(name)
        kind = stat.S_IFDIR if child.file is None else stat.S_IFREG
        entry = struct.pack("<QQII", child.number, position, len(raw), kind >> 12) + raw
        entry += b"\0" * (-len(entry) % 8)
        if len(found) + len(entry) > size:
            break
        found += entry
    return found


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
