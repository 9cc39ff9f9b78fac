"""What the control plane asks of replicas that stand for simulated devices, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ridgeline.errors import InvalidInput, NotFound, NotReady, Unavailable
from ridgeline_backends.neuron.devices import instances
from ridgeline_service.control.endpoints.simulated import SimulatedDevices
from ridgeline_service.placement.machine import GIB
from ridgeline_service.placement.profiles import instance_type


class Replicas:
    """Answers as asked; remembers what came."""

    def __init__(self, status: int = 200, **answer: Any) -> None:
        self.status, self.answer = status, answer
        self.asked: list[tuple[str, Mapping[str, object] | None]] = []

    def __call__(
        self, port: int, token: str, path: str, body: Mapping[str, object] | None
    ) -> tuple[int, Mapping[str, Any]]:
        assert port
        assert token
        self.asked.append((path, body))
        return self.status, self.answer


def devices(world: Any, replicas: Replicas) -> SimulatedDevices:
    return SimulatedDevices(world.plane.endpoints._context, replicas)


def test_every_ready_replica_is_asked(world: Any) -> None:
    world.deploy("e", count=2)
    replicas = Replicas(instance_type="inf2.xlarge")
    shown = devices(world, replicas).show("e")
    assert [one["device"] for one in shown] == [{"instance_type": "inf2.xlarge"}] * 2
    fault = {"kind": "hbm-error", "after": 1, "every": 0}
    broken = devices(world, replicas).break_down("e", fault)
    assert broken == [one["id"] for one in shown]
    assert replicas.asked[2:] == [("/ridgeline/faults", fault)] * 2
    assert devices(world, replicas).break_down("e", fault, broken[1]) == [broken[1]]
    with pytest.raises(NotFound, match="no ready replica 'other'"):
        devices(world, replicas).break_down("e", fault, "other")


def test_what_a_replica_refuses_is_told_in_its_words(world: Any) -> None:
    world.deploy("e")
    said = Replicas(400, error={"message": "There is no fault 'x'."})
    with pytest.raises(InvalidInput, match="e: There is no fault 'x'"):
        devices(world, said).break_down("e", {"kind": "x"})
    with pytest.raises(Unavailable, match="answered 503"):
        devices(world, Replicas(503)).show("e")


def test_what_is_not_there_or_not_ready_says_so(world: Any) -> None:
    with pytest.raises(NotFound, match="Could not find endpoint"):
        devices(world, Replicas()).show("nobody")
    world.model("e")
    world.config("e", "e")
    world.endpoint("e", "e")
    with pytest.raises(NotReady, match="no replica that is ready"):
        devices(world, Replicas()).show("e")


def test_what_plans_recommend_can_be_deployed() -> None:
    """What is simulated and no rack of machines has a profile, of the same memory."""
    known = {f"ml.{one.name}": one for one in instances().values()}
    rentable = {
        name: one for name, one in known.items() if one.ram_gib and "ultraserver" not in name
    }
    assert {"ml.trn2.3xlarge", "ml.inf2.48xlarge"} <= set(rentable)
    for name, one in rentable.items():
        assert instance_type(name).memory_bytes == one.ram_gib * GIB, name
