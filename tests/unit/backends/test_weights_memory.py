"""What reading weights leaves in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ridgeline_backends.models.weights import Weights

SIZE = 64 << 20


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell")
def test_dropped_pages_are_given_back_and_read_again(tmp_path: Path):
    whole = torch.arange(SIZE // 4, dtype=torch.float32).view(1024, -1)
    save_file({"w": whole}, tmp_path / "model.safetensors")
    with Weights(tmp_path) as weights:
        before = resident()
        tensor = weights.get("w", *whole.shape)
        assert torch.equal(tensor, whole)
        filled = resident()
        weights.drop_pages()
        left = resident()
        assert filled - before > SIZE // 2
        assert filled - left > SIZE // 2
        assert torch.equal(tensor, whole)
