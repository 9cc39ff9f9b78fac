"""CRC32C and CRC64NVME, which S3 clients may send and the standard library lacks.

A loop over bytes would be a hundred times too slow. CRCs are linear, so a block is cut into lanes
that numpy advances side by side, two bytes at a step, and whose results are then folded together
in pairs: that is several hundred MiB a second. CRC32 and the SHAs are hashlib's and zlib's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.unsignedinteger[Any]]

# Both are reflected, start from all ones and end inverted.
_POLYNOMIALS = {4: 0x82F63B78, 8: 0x9A6C9329AC4BC9B5}
_LANES = 4096
_LANE = 64
_BLOCK = _LANES * _LANE
_BY_BYTE = 512


class Crc:
    """A checksum in hashlib's manner. ``width`` is 4 for CRC32C and 8 for CRC64NVME."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._ones = (1 << 8 * width) - 1
        self._state = self._ones
        self._waiting = bytearray()

    def update(self, data: bytes, /) -> None:
        self._waiting += data
        whole = len(self._waiting) - len(self._waiting) % _BLOCK
        for start in range(0, whole, _BLOCK):
            self._state = self._after(self._waiting[start : start + _BLOCK])
        del self._waiting[:whole]

    def digest(self) -> bytes:
        if len(self._waiting) <= _BY_BYTE:
            table = _bytes_table(self._width)
            state = self._state
            for byte in self._waiting:
                state = table[(state ^ byte) & 255] ^ (state >> 8)
        else:
            state = self._after(bytearray(self._waiting))
        return (state ^ self._ones).to_bytes(self._width, "big")

    def _after(self, data: bytearray) -> int:
        """The state after ``data``, which is overwritten: the state so far is added to its first
        bytes, and zeros in front of it, which fill up the block, change nothing."""
        width = self._width
        begun = int.from_bytes(data[:width], "little") ^ self._state
        data[:width] = begun.to_bytes(width, "little")
        if len(data) < _BLOCK:
            data[:0] = bytes(_BLOCK - len(data))
        return _block(data, width)


def _block(data: bytearray, width: int) -> int:
    """The CRC of one block, started from zero and not inverted."""
    import numpy as np

    table, folds = _tables(width)
    pairs = np.frombuffer(data, "<u2").reshape(_LANES, _LANE // 2).T.copy()
    state = np.zeros(_LANES, table.dtype)
    for pair in pairs:
        state = table.take(state.astype(np.uint16) ^ pair) ^ (state >> table.dtype.type(16))
    offsets = np.arange(width) * 256
    for fold in folds:
        # Each left neighbour as it would be after the zeros that its right one stands for.
        left, right = state[0::2], state[1::2]
        digits = np.ascontiguousarray(left).view(np.uint8).reshape(-1, width)
        state = np.bitwise_xor.reduce(fold.take(digits + offsets), axis=1) ^ right
    return int(state[0])


@lru_cache
def _bytes_table(width: int) -> tuple[int, ...]:
    """What each byte turns a state of zero into."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIALS[width] if value & 1 else 0)
        table.append(value)
    return tuple(table)


@lru_cache
def _tables(width: int) -> tuple[Words, tuple[Words, ...]]:
    """Steps of two bytes; and for every round of folding what each byte of a state becomes after
    as many zeros as a lane of that round is long."""
    # Here and not above: most stores never meet these checksums, and numpy is 20 MiB.
    import numpy as np

    kind = np.dtype(f"<u{width}")
    eight = kind.type(8)
    single = np.array(_bytes_table(width), kind)
    values = np.arange(65536, dtype=kind)

    def zero_byte(states: Words) -> Words:
        after: Words = single[states & kind.type(255)] ^ (states >> eight)
        return after

    steps = zero_byte(zero_byte(values))
    # Every byte at every place of a state, flat: [place * 256 + byte].
    fold = np.concatenate([np.arange(256, dtype=kind) << kind.type(8 * i) for i in range(width)])
    for _ in range(_LANE):
        fold = zero_byte(fold)
    folds = []
    lanes = _LANES
    while lanes > 1:
        folds.append(fold)
        digits = np.ascontiguousarray(fold).view(np.uint8).reshape(-1, width)
        fold = np.bitwise_xor.reduce(fold.take(digits + np.arange(width) * 256), axis=1)
        lanes //= 2
    return steps, tuple(folds)
