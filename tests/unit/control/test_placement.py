"""Instance types as data, admission as arithmetic."""

from __future__ import annotations

import pytest
from botocore.loaders import Loader
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.admission import Load, Room, admit
from ridgeline_service.placement.machine import GIB, this_machine
from ridgeline_service.placement.profiles import instance_type, instance_types, is_instance_type


@pytest.mark.parametrize(
    "family",
    [
        "t3",
        "m5",
        "m6i",
        "m7i",
        "c5",
        "c6i",
        "c7i",
        "r5",
        "g4dn",
        "g5",
        "g6",
        "p3",
        "p4d",
        "p5",
        "inf1",
        "inf2",
        "trn1",
        "trn2",
    ],
)
def test_the_common_families_are_there(family):
    assert any(item.name.startswith(f"ml.{family}.") for item in instance_types())


def test_a_profile_gives_memory_accelerators_and_a_dated_price():
    found = instance_type("ml.g5.xlarge")
    assert (found.vcpus, found.memory_bytes) == (4, 16 * GIB)
    assert found.accelerator is not None
    assert (found.accelerator.kind, found.accelerator.count) == ("gpu", 1)
    assert found.usd_per_hour
    assert found.priced_on


@pytest.mark.parametrize("item", instance_types(), ids=lambda item: item.name)
def test_every_profile_is_plausible(item):
    assert item.vcpus >= 2
    assert 1 * GIB <= item.memory_bytes <= 4096 * GIB
    assert (item.usd_per_hour is None) == (item.priced_on == "")
    if item.usd_per_hour is not None:
        # A column that slipped (an accelerator count taken for a price) would be far off.
        assert 0.01 < item.usd_per_hour / item.vcpus < 1.0


def test_an_unknown_type_is_refused_with_the_nearest():
    with pytest.raises(ValidationException, match=r"ml\.m5\.xlrge") as caught:
        instance_type("ml.m5.xlrge")
    assert "ml.m5.xlarge" in caught.value.hint


def test_every_type_of_sagemakers_has_a_profile():
    model = Loader().load_service_model("sagemaker", "service-2")
    names = model["shapes"]["ProductionVariantInstanceType"]["enum"]
    assert len(names) > len(instance_types())
    for name in names:
        found = instance_type(name)
        assert found.name == name
        assert is_instance_type(name)
        assert found.vcpus >= 1
        assert found.memory_bytes >= 2 * GIB
        assert found.derived is (found not in instance_types())


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gib", "kind"),
    [
        ("ml.c8g.medium", 1, 2, None),
        ("ml.m6g.xlarge", 4, 16, None),
        ("ml.c7g.16xlarge", 64, 128, None),
        ("ml.r7i.large", 2, 16, None),
        ("ml.g6e.12xlarge", 48, 192, "gpu"),
        ("ml.p6-b200.48xlarge", 192, 1536, "gpu"),
        ("ml.dl1.24xlarge", 96, 768, "hpu"),
    ],
)
def test_a_derived_profile_follows_from_family_and_size(name, vcpus, memory_gib, kind):
    found = instance_type(name)
    assert (found.vcpus, found.memory_bytes) == (vcpus, memory_gib * GIB)
    assert found.derived
    assert found.usd_per_hour is None
    assert (found.accelerator.kind if found.accelerator else None) == kind
    if found.accelerator is not None:
        assert found.accelerator.count is None


def test_burstable_types_that_sagemaker_lacks_stay_known():
    assert not instance_type("ml.t3.medium").derived
    assert not is_instance_type("ml.nope")


def test_this_machine_keeps_a_reserve():
    machine = this_machine()
    assert machine.memory_bytes > 0
    assert machine.cores >= 1


@given(st.lists(st.integers(1, 8 * GIB), max_size=30), st.integers(1, 16), st.integers(1, 32 * GIB))
def test_what_is_admitted_never_exceeds_the_room(sizes, count, memory):
    room, load = Room(count, memory), Load(0, 0)
    for size in sizes:
        wait = admit(size, load, room)
        if wait is None:
            load = Load(load.instances + 1, load.memory_bytes + size)
        elif wait.shortage == "instances":
            assert load.instances == count
        else:
            assert load.memory_bytes + size > memory
    assert load.instances <= count
    assert load.memory_bytes <= memory
