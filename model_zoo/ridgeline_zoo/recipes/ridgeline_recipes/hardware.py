"""What this machine computes well, found without loading torch."""

from __future__ import annotations

from pathlib import Path

_CPU = Path("/proc/cpuinfo")
_GPU = Path("/proc/driver/nvidia/gpus")
# Without any of these, bf16 products run in plain loops, tens of times slower than fp32.
_BF16_FLAGS = frozenset({"avx512bw", "avx512_bf16", "amx_bf16", "bf16"})


def multiplies_bf16(cpu: Path = _CPU, gpu: Path = _GPU) -> bool:
    """Whether bf16 is at least as fast as fp32 here."""
    if gpu.is_dir() and any(gpu.iterdir()):
        return True
    for line in cpu.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return bool(_BF16_FLAGS & set(value.split()))
    return False
