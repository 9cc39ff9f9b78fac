"""``ridgeline neuron ls``: the table that neuron-ls would print on an instance type."""

from __future__ import annotations

from typing import Annotated

import typer

from ridgeline.cli._common import AsJson, print_json, print_table
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.devices import Instance, instance, instances
from ridgeline_backends.neuron.devices.model import GIB
from ridgeline_backends.neuron.topology import device_graph

_COLUMNS = ("NEURON DEVICE", "NEURON CORES", "NEURON CORE IDS", "NEURON MEMORY")


def ls(
    instance_type: Annotated[
        str | None,
        typer.Option("--instance", metavar="TYPE", help="Instance type, like trn2.48xlarge."),
    ] = None,
    lnc: Annotated[
        int | None,
        typer.Option(
            "--lnc", min=1, help="Physical cores per logical NeuronCore.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices of an instance type, or all instance types that have some."""
    if instance_type is None:
        if lnc is not None:
            raise InvalidInput(
                "--lnc is of one instance type, and all are listed, each at its own.",
                hint=f"Add --instance, like --instance trn2.48xlarge --lnc {lnc}.",
            )
        _list_types(as_json)
        return
    found = instance(instance_type)
    chosen = found.chip.default_lnc if lnc is None else lnc
    devices = describe(found, chosen)
    if as_json:
        print_json(devices)
        return
    _print_header(found, chosen)
    print_table(
        (*_COLUMNS, "CONNECTED DEVICES"),
        [
            (
                device["neuron_device"],
                device["nc_count"],
                _span(device["neuroncore_ids"]),
                f"{found.chip.memory_gib:g} GB",
                ", ".join(map(str, connected)),
            )
            for device, connected in zip(devices, device_graph(found).neighbours, strict=True)
        ],
    )


def describe(found: Instance, lnc: int) -> list[dict[str, object]]:
    """One object per device, with neuron-ls's own field names. Raises `InvalidInput` for an LNC
    the chip does not have. Fields of the host (PCI address, NUMA node) are left out: a simulated
    device has none."""
    cores = found.chip.logical_cores(lnc)
    return [
        {
            "neuron_device": device,
            "connected_to": list(connected),
            "nc_count": cores,
            "logical_neuroncore_config": lnc,
            "memory_size": int(found.chip.memory_gib * GIB),
            "neuroncore_ids": list(range(device * cores, (device + 1) * cores)),
            "neuron_processes": [],
        }
        for device, connected in enumerate(device_graph(found).neighbours)
    ]


def _print_header(found: Instance, lnc: int) -> None:
    graph = device_graph(found)
    typer.echo(f"instance-type: {found.name} (simulated)")
    typer.echo(f"logical-neuroncore-config: {lnc}")
    typer.echo(
        f"{found.chips} devices, {found.cores(lnc)} NeuronCores, {found.memory_gib:g} GB, "
        f"{found.memory_gb_s:g} GB/s, {graph.diameter} hops at most"
    )


def _list_types(as_json: bool) -> None:
    if as_json:
        print_json([_summary(one) for one in instances().values()])
        return
    rows = [tuple(map(_cell, _summary(one).values())) for one in instances().values()]
    columns = ("INSTANCE TYPE", "CHIP", "DEVICES", "CORES", "LNC", "MEMORY GB", "HOPS", "USD/H")
    print_table(columns, rows)


def _summary(one: Instance) -> dict[str, object]:
    lnc = one.chip.default_lnc
    return {
        "instance_type": one.name,
        "chip": one.chip.name,
        "devices": one.chips,
        "cores": one.cores(lnc),
        "logical_neuroncore_config": lnc,
        "memory_gb": one.memory_gib,
        "hops": device_graph(one).diameter,
        "price_usd_h": one.price_usd_h,
    }


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else value


def _span(ids: object) -> str:
    listed = list(ids) if isinstance(ids, list) else []
    return f"{listed[0]}-{listed[-1]}" if len(listed) > 1 else str(listed[0])
