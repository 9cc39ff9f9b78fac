"""What the order that starts a model server says of its environment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ridgeline_service.control.endpoints.launching import Identity, launch_order
from ridgeline_service.control.staging import Staged


def environment(kind: Any, **given: str) -> dict[str, str]:
    staged = Staged(
        kind=kind,
        runtime_name="r",
        python=Path("/usr/bin/python3"),
        argv=("serve",),
        environment=given,
        model_dir=None,
    )
    container = SimpleNamespace(image="pytorch-inference:2.6")
    variant: Any = SimpleNamespace(
        name="v", container=container, memory_limit_bytes=1, instance_type="ml.m5.large"
    )
    order = launch_order(
        Identity("r", "t", "g", "s"),
        variant,
        staged,
        region="eu-west-1",
        port=1,
        threads=None,
        own_environment={},
    )
    return dict(order.environment)


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_aws_clients_in_an_inference_script_find_the_region(name: str) -> None:
    assert environment("framework")[name] == "eu-west-1"
    assert environment("framework", **{name: "own"})[name] == "own"
