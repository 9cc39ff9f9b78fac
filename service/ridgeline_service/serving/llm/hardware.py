"""Routes for whoever runs the service: what a replica's simulated device is, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from ridgeline_backends.device_time import MeteredHardware, SimulatedHardware
from ridgeline_service.serving.llm.answers import Answer, json_answer
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.model import Model, TextModel
from ridgeline_service.serving.llm.simulated import (
    device_object,
    encoded_so_far,
    generated_so_far,
)


class FaultRequest(Body):
    """``kind`` "": everything is whole again."""

    kind: str
    after: int = Field(0, ge=0)
    every: int = Field(0, ge=0)


def simulated_device(model: Model) -> Answer:
    """``GET /ridgeline/simulated``. Raises BadRequest where nothing is simulated."""
    hardware = _hardware(model)
    found = device_object(hardware.simulates)
    if isinstance(model, TextModel):
        found |= generated_so_far(hardware.simulates, model.engine.stats())
    elif isinstance(hardware, MeteredHardware):
        found |= encoded_so_far(hardware)
    return json_answer(found)


def break_down(model: Model, body: Mapping[str, object]) -> Answer:
    """``POST /ridgeline/faults``. Raises BadRequest, and InvalidInput for an unknown kind."""
    asked = FaultRequest.read(body)
    _hardware(model).break_down(asked.kind, after=asked.after, every=asked.every)
    return json_answer({"kind": asked.kind, "after": asked.after, "every": asked.every})


def _hardware(model: Model) -> SimulatedHardware:
    if model.hardware is None:
        raise BadRequest(
            "This replica runs on this machine itself, it stands for no simulated device.",
            hint="Deploy on a Neuron instance type, like ml.inf2.xlarge.",
        )
    return model.hardware
