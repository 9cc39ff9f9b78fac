"""Reads chips.yaml and instances.yaml; a figure without a known source is an error.

The totals AWS prints are compared with what the chips add up to, so that a slip in one of the two
does not go unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TypeVar

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.datafile import Section, read_sections
from ridgeline_backends.neuron.devices.model import Chip, Instance, OtherInstance, Topology

Found = TypeVar("Found")
DATA = Path(__file__).parent / "data"


def chip(name: str) -> Chip:
    """A chip by name. Raises `NotFound`."""
    return _find(chips(), name, "chip")


def instance(name: str) -> Instance:
    """An instance type by name, with or without `ml.` before it. Raises `NotFound`."""
    return _find(instances(), name.removeprefix("ml."), "instance type with Neuron devices")


@cache
def chips() -> Mapping[str, Chip]:
    """All chips. Raises `InvalidDataFile`."""
    return load_chips(DATA / "chips.yaml", sources())


@cache
def instances() -> Mapping[str, Instance]:
    """All instance types with Neuron devices, in the file's order. Raises `InvalidDataFile`."""
    return load_instances(DATA / "instances.yaml", chips(), sources())[0]


@cache
def other_instances() -> Mapping[str, OtherInstance]:
    """GPU and CPU instance types. Raises `InvalidDataFile`."""
    return load_instances(DATA / "instances.yaml", chips(), sources())[1]


@cache
def sources() -> Mapping[str, str]:
    """What the keys of sources stand for."""
    top = read_sections(DATA / "sources.yaml")
    return {key: top.text(key) for key in top.names()}


def load_chips(path: Path, known_sources: Mapping[str, str]) -> dict[str, Chip]:
    """Read a file of chips."""
    top = read_sections(path)
    return {name: _chip(name, top.section(name), known_sources) for name in top.names()}


def load_instances(
    path: Path, known_chips: Mapping[str, Chip], known_sources: Mapping[str, str]
) -> tuple[dict[str, Instance], dict[str, OtherInstance]]:
    """Read a file of instance types: those with Neuron devices, and the others."""
    top = read_sections(path)
    neuron, others = top.section("neuron"), top.section("others")
    top.done()
    return (
        {n: _instance(n, neuron.section(n), known_chips, known_sources) for n in neuron.names()},
        {n: _other(n, others.section(n), known_sources) for n in others.names()},
    )


def _chip(name: str, entry: Section, known: Mapping[str, str]) -> Chip:
    memory, tensor = _sourced(entry, "memory", known), _sourced(entry, "tensor", known)
    clocks, lanes = _sourced(entry, "clocks", known), _sourced(entry, "lanes", known)
    sbuf, psum = _sourced(entry, "sbuf", known), _sourced(entry, "psum", known)
    dma, link = _sourced(entry, "dma", known), _sourced(entry, "link", known)
    found = Chip(
        name=name,
        neuroncore=entry.text("neuroncore"),
        cores=entry.integer("cores"),
        memory_gib=memory.number("gib"),
        memory_banks=memory.integer("banks"),
        memory_gb_s=memory.number("gb_s"),
        tensor_rows=tensor.integer("rows"),
        tensor_columns=tensor.integer("columns"),
        fp32_passes=tensor.integer("fp32_passes"),
        tflops_per_core=tensor.numbers("tflops_per_core"),
        tensor_ghz=clocks.number("tensor_ghz"),
        vector_ghz=clocks.number("vector_ghz"),
        scalar_ghz=clocks.number("scalar_ghz"),
        gpsimd_ghz=clocks.number("gpsimd_ghz"),
        vector_lanes=lanes.integer("vector"),
        vector_bf16_lanes=lanes.integer("vector_bf16"),
        scalar_lanes=lanes.integer("scalar"),
        sbuf_mib_per_core=sbuf.number("mib_per_core"),
        partitions=sbuf.integer("partitions"),
        psum_mib_per_core=psum.number("mib_per_core"),
        psum_banks=psum.integer("banks"),
        psum_bank_bytes=psum.integer("bank_bytes"),
        dma_engines_per_core=dma.integer("engines_per_core"),
        dma_engine_gb_s=dma.number("engine_gb_s"),
        dma_start_us=dma.number("start_us"),
        dma_makes_descriptors=dma.flag("makes_descriptors"),
        link_name=link.text("name"),
        link_gb_s=link.number("gb_s"),
        cc_cores=entry.integer("cc_cores"),
        lnc=entry.integers("lnc"),
    )
    for part in (memory, tensor, clocks, lanes, sbuf, psum, dma, link, entry):
        part.done()
    if not found.lnc or found.cores % found.lnc[-1]:
        raise entry.wrong("lnc", f"configurations that divide {found.cores} cores")
    return found


def _instance(
    name: str, entry: Section, known_chips: Mapping[str, Chip], known: Mapping[str, str]
) -> Instance:
    _check_source(entry, known)
    device = known_chips.get(entry.text("chip"))
    if device is None:
        raise entry.wrong("chip", f"one of {', '.join(known_chips)}")
    topology = next((t for t in Topology if t.value == entry.text("topology")), None)
    if topology is None:
        raise entry.wrong("topology", f"one of {', '.join(t.value for t in Topology)}")
    vcpu = entry.optional("vcpu")
    found = Instance(
        name=name,
        chip=device,
        chips=entry.integer("chips"),
        topology=topology,
        shape=entry.integers("shape"),
        tensor_parallel=entry.integers("tp"),
        vcpu=None if vcpu is None else int(vcpu),
        ram_gib=entry.optional("ram_gib"),
        network_gbps=entry.optional("network_gbps"),
        efa=_flag(entry, "efa"),
        link_gb_s=entry.number("link_gb_s", device.link_gb_s),
        price_usd_h=entry.optional("price"),
        price_date=entry.text("price_date"),
    )
    size = 1
    for extent in found.shape:
        size *= extent
    if size != found.chips:
        raise entry.wrong("shape", f"extents that multiply to {found.chips} chips")
    _compare(entry.section("printed"), found)
    entry.done()
    return found


def _other(name: str, entry: Section, known: Mapping[str, str]) -> OtherInstance:
    _check_source(entry, known)
    found = OtherInstance(
        name=name,
        device=entry.text("device"),
        devices=entry.integer("devices"),
        memory_gib=entry.number("memory_gib"),
        gb_s=entry.number("gb_s"),
        bf16_tflops=entry.optional("bf16_tflops"),
        vcpu=entry.integer("vcpu"),
        ram_gib=entry.number("ram_gib"),
        price_usd_h=entry.optional("price"),
        price_date=entry.text("price_date"),
    )
    entry.done()
    return found


def _sourced(entry: Section, field: str, known: Mapping[str, str]) -> Section:
    section = entry.section(field)
    _check_source(section, known)
    return section


def _check_source(section: Section, known: Mapping[str, str]) -> None:
    if section.text("source") not in known:
        raise section.wrong("source", "a key of sources.yaml")


def _flag(entry: Section, field: str) -> bool:
    value = entry.text(field)
    if value not in ("true", "false"):
        raise entry.wrong(field, "true or false")
    return value == "true"


def _compare(printed: Section, found: Instance) -> None:
    totals = {
        "cores": found.cores(1),
        "memory_gib": found.memory_gib,
        "memory_gb_s": found.memory_gb_s,
    }
    for field, total in totals.items():
        if field in printed and printed.number(field) != total:
            raise printed.wrong(field, f"{total:g}, which the chips add up to")
    printed.done()


_NEAR = 0.75
"""How alike a name must be: all types end like "large"."""


def _find(known: Mapping[str, Found], name: str, kind: str) -> Found:
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=_NEAR)
        suggestion = f"Did you mean {close[0]!r}? " if close else ""
        raise NotFound(
            f"There is no {kind} {name!r}.", hint=f"{suggestion}Known: {', '.join(known)}."
        )
    return known[name]
