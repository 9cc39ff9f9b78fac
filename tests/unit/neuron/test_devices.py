"""Chips, instance types and their wiring, against what AWS prints; and how the data is guarded."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput, NotFound
from ridgeline_backends.neuron.commands import app
from ridgeline_backends.neuron.datafile import InvalidDataFile
from ridgeline_backends.neuron.devices import instance, instances
from ridgeline_backends.neuron.devices.loader import (
    DATA,
    chips,
    load_chips,
    load_instances,
    other_instances,
    sources,
)
from ridgeline_backends.neuron.devices.model import Topology
from ridgeline_backends.neuron.topology import device_graph, graph

# name: chips, cores at LNC 1, at the largest LNC, HBM GiB, GB/s, links, diameter, hops in all
_PRINTED = {
    "inf1.xlarge": (1, 4, 4, 8, 53.7, 0, 0, 0),
    "inf1.2xlarge": (1, 4, 4, 8, 53.7, 0, 0, 0),
    "inf1.6xlarge": (4, 16, 16, 32, 214.8, 4, 2, 16),
    "inf1.24xlarge": (16, 64, 64, 128, 859.2, 16, 8, 1024),
    "inf2.xlarge": (1, 2, 2, 32, 820, 0, 0, 0),
    "inf2.8xlarge": (1, 2, 2, 32, 820, 0, 0, 0),
    "inf2.24xlarge": (6, 12, 12, 192, 4920, 6, 3, 54),
    "inf2.48xlarge": (12, 24, 24, 384, 9840, 12, 6, 432),
    "trn1.2xlarge": (1, 2, 2, 32, 820, 0, 0, 0),
    "trn1.32xlarge": (16, 32, 32, 512, 13120, 32, 4, 512),
    "trn1n.32xlarge": (16, 32, 32, 512, 13120, 32, 4, 512),
    "trn2.3xlarge": (1, 8, 4, 96, 2900, 0, 0, 0),
    "trn2.48xlarge": (16, 128, 64, 1536, 46400, 32, 4, 512),
    "trn2u.48xlarge": (16, 128, 64, 1536, 46400, 32, 4, 512),
    "trn2-ultraserver": (64, 512, 256, 6144, 185600, 192, 6, 12288),
    "trn3.3xlarge": (1, 8, 4, 144, 4900, 0, 0, 0),
    "trn3-gen1-ultraserver": (64, 512, 256, 9216, 313600, 2016, 1, 4032),
    "trn3-gen2-ultraserver": (144, 1152, 576, 20736, 705600, 10296, 1, 20592),
}


def test_every_instance_type_is_in_the_table() -> None:
    assert set(instances()) == set(_PRINTED)


@pytest.mark.parametrize("name", _PRINTED)
def test_totals_and_hops(name: str) -> None:
    one = instance(name)
    wiring = device_graph(one)
    found = (
        one.chips,
        one.cores(1),
        one.cores(one.chip.default_lnc),
        one.memory_gib,
        pytest.approx(one.memory_gb_s),
        wiring.links,
        wiring.diameter,
        wiring.total_hops,
    )
    assert found == _PRINTED[name]


def test_hops_of_a_torus_wrap_around() -> None:
    torus = graph(Topology.TORUS, (4, 4))
    assert torus.hops[0][15] == 2
    assert torus.hops[0][10] == 4
    assert torus.group_diameter(4) == 2
    assert torus.neighbours[0] == (12, 3, 4, 1)


def test_neighbours_are_mutual() -> None:
    for one in instances().values():
        wired = device_graph(one).neighbours
        assert all(a in wired[b] for a, row in enumerate(wired) for b in row)


def test_two_logical_cores_share_a_bank_at_lnc_2() -> None:
    assert instance("trn2.48xlarge").core_memory_bytes(2) == 24 * 2**30
    assert instance("ml.inf2.xlarge").core_memory_bytes(1) == 16 * 2**30


def test_an_unknown_type_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"Did you mean .trn2\.48xlarge"):
        instance("trn2.48xlarg")
    with pytest.raises(InvalidInput, match="logical NeuronCore configuration 2"):
        instance("inf2.xlarge").cores(2)


def test_comparison_types_are_there() -> None:
    assert other_instances()["p5.48xlarge"].gb_s == 3350
    assert other_instances()["p5e.48xlarge"].price_usd_h is None


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("gib: 8,", "gib: eight,", 6, "memory.gib must be a number"),
        ("gib: 8,", "gib: -8,", 6, "at least 0"),
        ("banks: 1,", "bank: 1,", 6, "lacks the field 'banks'"),
        ("banks: 1,", "banks: 1, colour: red,", 6, "unknown field 'colour'"),
        ("banks: 1,", "banks: 1, banks: 2,", 6, "there twice"),
        ("source: A1}       #", "source: A9} #", 6, "a key of sources.yaml"),
        ("  lnc: [1]", "  lnc: [3]", 15, "divide 4 cores"),
    ],
)
def test_a_wrong_chip_field_is_an_error_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    path = tmp_path / "chips.yaml"
    path.write_text((DATA / "chips.yaml").read_text().replace(old, new, 1))
    with pytest.raises(InvalidDataFile) as caught:
        load_chips(path, sources())
    assert caught.value.file == "chips.yaml"
    assert caught.value.line == line
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("cores: 64, memory_gib: 128}", "cores: 65, memory_gib: 128}", "add up to"),
        ("shape: [12]", "shape: [13]", "multiply to 12"),
        ("topology: torus", "topology: tree", "one of ring, torus, full"),
        ("chip: inferentia1", "chip: inferentia9", "one of inferentia1"),
        ("efa: true", "efa: maybe", "true or false"),
        ("price: 0.228,", "price: 0.228, prise: 1,", "unknown field 'prise'"),
    ],
)
def test_a_wrong_instance_field_is_an_error(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "instances.yaml"
    path.write_text((DATA / "instances.yaml").read_text().replace(old, new, 1))
    with pytest.raises(InvalidDataFile, match=says):
        load_instances(path, chips(), sources())


def test_ls_shows_cores_by_lnc() -> None:
    run = CliRunner()
    one = run.invoke(app, ["ls", "--instance", "trn2.48xlarge", "--lnc", "1"]).stdout
    assert "128 NeuronCores" in one
    assert one.splitlines()[4].split("  ")[-1].strip() == "12, 3, 4, 1"
    assert "64 NeuronCores" in run.invoke(app, ["ls", "--instance", "trn2.48xlarge"]).stdout
    assert "trn3-gen2-ultraserver" in run.invoke(app, ["ls"]).stdout
