"""What a chip and an instance type are: figures alone, no arithmetic of time.

Units are in the names: GiB and MiB are binary, GB/s and TFLOPS decimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ridgeline.errors import InvalidInput

GIB = 1024**3


class Topology(Enum):
    """How the devices of an instance are wired."""

    RING = "ring"
    TORUS = "torus"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chip:
    """One device. `lanes`: elements an engine takes a cycle; `tflops_per_core` by data type.
    `dma_makes_descriptors`: as transfers run; others keep them in memory.

    A chip is itself alone: two that were read twice are not equal, which makes it a key."""

    name: str
    neuroncore: str
    cores: int
    memory_gib: float
    memory_banks: int
    memory_gb_s: float
    tensor_rows: int
    tensor_columns: int
    fp32_passes: int
    tflops_per_core: Mapping[str, float]
    tensor_ghz: float
    vector_ghz: float
    scalar_ghz: float
    gpsimd_ghz: float
    vector_lanes: int
    vector_bf16_lanes: int
    scalar_lanes: int
    sbuf_mib_per_core: float
    partitions: int
    psum_mib_per_core: float
    psum_banks: int
    psum_bank_bytes: int
    dma_engines_per_core: int
    dma_engine_gb_s: float
    dma_start_us: float
    dma_makes_descriptors: bool
    link_name: str
    link_gb_s: float
    cc_cores: int
    lnc: tuple[int, ...]

    @property
    def default_lnc(self) -> int:
        """Physical cores per logical core where nothing was asked for."""
        return self.lnc[-1]

    def logical_cores(self, lnc: int) -> int:
        """Logical cores of the device. Raises `InvalidInput` for an LNC it does not have."""
        if lnc not in self.lnc:
            raise InvalidInput(
                f"{self.name} has no logical NeuronCore configuration {lnc}.",
                hint=f"It has: {', '.join(map(str, self.lnc))}.",
            )
        return self.cores // lnc

    def memory_gb_s_per_core(self, lnc: int) -> float:
        """Share of the memory's bandwidth of one logical core."""
        return self.memory_gb_s / self.cores * lnc


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance type with simulated devices. `price_usd_h` is None where none is listed."""

    name: str
    chip: Chip
    chips: int
    topology: Topology
    shape: tuple[int, ...]
    tensor_parallel: tuple[int, ...]
    vcpu: int | None
    ram_gib: float | None
    network_gbps: float | None
    efa: bool
    link_gb_s: float
    price_usd_h: float | None
    price_date: str

    def cores(self, lnc: int) -> int:
        """Logical cores of the instance."""
        return self.chips * self.chip.logical_cores(lnc)

    @property
    def memory_gib(self) -> float:
        return self.chips * self.chip.memory_gib

    @property
    def memory_gb_s(self) -> float:
        return self.chips * self.chip.memory_gb_s

    def core_memory_bytes(self, lnc: int) -> int:
        """Device memory of one logical core."""
        return int(self.chip.memory_gib * GIB) // self.chip.logical_cores(lnc)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherInstance:
    """A GPU or CPU instance type, for comparison. Bandwidth and peak are of one device."""

    name: str
    device: str
    devices: int
    memory_gib: float
    gb_s: float
    bf16_tflops: float | None
    vcpu: int
    ram_gib: float
    price_usd_h: float | None
    price_date: str
