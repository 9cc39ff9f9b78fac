from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline_recipes.hardware import multiplies_bf16


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("flags\t\t: fpu avx avx2 fma", False),
        ("flags\t\t: fpu avx2 avx512f avx512bw avx512vl", True),
        ("flags\t\t: fpu avx2 amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("model name\t: avx512bw", False),
    ],
)
def test_bf16_is_fast_where_there_are_instructions(tmp_path: Path, flags: str, fast: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert multiplies_bf16(tmp_path / "cpuinfo", tmp_path / "none") is fast


def test_a_gpu_is_fast(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2\n")
    (tmp_path / "gpus" / "0").mkdir(parents=True)
    assert multiplies_bf16(tmp_path / "cpuinfo", tmp_path / "gpus")
