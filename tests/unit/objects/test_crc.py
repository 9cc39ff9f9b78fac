"""The checksums that the standard library lacks, against their definition and published values."""

from __future__ import annotations

import random

import pytest

from ridgeline_service.objects.crc import Crc

POLYNOMIALS = {4: 0x82F63B78, 8: 0x9A6C9329AC4BC9B5}
SIZES = [0, 1, 3, 7, 8, 9, 511, 512, 513, 4096, 262_143, 262_144, 262_145, 600_001]


def by_bits(data: bytes, width: int) -> bytes:
    """The definition."""
    ones = (1 << 8 * width) - 1
    state = ones
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (POLYNOMIALS[width] if state & 1 else 0)
    return (state ^ ones).to_bytes(width, "big")


@pytest.mark.parametrize(("width", "known"), [(4, "e3069283"), (8, "ae8b14860a799888")])
def test_published_check_values(width: int, known: str) -> None:
    crc = Crc(width)
    crc.update(b"123456789")
    assert crc.digest().hex() == known
    zeros = Crc(4)
    zeros.update(bytes(32))
    assert zeros.digest().hex() == "8a9136aa"  # RFC 3720, B.4


@pytest.mark.parametrize("width", [4, 8])
def test_any_size_in_any_pieces(width: int) -> None:
    source = random.Random(width)
    data = source.randbytes(SIZES[-1])
    for size in SIZES:
        crc = Crc(width)
        at = 0
        while at < size:
            step = source.choice((1, 5, 600, 70_000, 500_000))
            crc.update(data[at : min(at + step, size)])
            at += step
        if size < 300_000:
            assert crc.digest() == by_bits(data[:size], width), size
        whole = Crc(width)
        whole.update(data[:size])
        assert whole.digest() == crc.digest()


@pytest.mark.parametrize("width", [4, 8])
def test_one_flipped_bit_shows(width: int) -> None:
    data = bytearray(random.Random(1).randbytes(300_000))
    before = Crc(width)
    before.update(data)
    for place in (0, 8, 70_000, 262_143, 262_144, 299_999):
        data[place] ^= 16
        after = Crc(width)
        after.update(data)
        assert after.digest() != before.digest()
        data[place] ^= 16
