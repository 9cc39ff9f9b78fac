"""``ridgeline delete``: what goes with an endpoint, and what stays because others use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def goes_slowly(fake: Any, sdk_tools: Any) -> None:
    """Endpoint e is there for two more looks after it was deleted."""
    fake.endpoint("e")
    there = fake.rules["DescribeEndpoint"][0]
    absent = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "e".')
    looks = iter([there, there])
    fake.rules["DescribeEndpoint"] = lambda call: (
        next(looks, absent) if "DeleteEndpoint" in fake.operations() else there
    )


def test_delete_takes_all_of_it_and_waits(fake: Any, run: Run, sdk_tools: Any, clock: Any) -> None:
    goes_slowly(fake, sdk_tools)
    result = run("delete", "e", "--json")
    assert json.loads(result.stdout) == {"deleted": ["e"], "kept": []}
    assert fake.requests("DeleteEndpoint") == [{"EndpointName": "e"}]
    assert fake.requests("DeleteEndpointConfig") == [{"EndpointConfigName": "e"}]
    assert fake.requests("DeleteModel") == [{"ModelName": "e-model"}]
    assert len(clock.slept) == 2


def test_one_wrong_name_does_not_keep_the_others(fake: Any, run: Run, sdk_tools: Any) -> None:
    fake.endpoint("e")
    there = fake.rules["DescribeEndpoint"][0]
    absent = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "nope".')
    fake.rules["DescribeEndpoint"] = lambda call: (
        there if call.json["EndpointName"] == "e" else absent
    )
    result = run("delete", "nope", "e", "--no-wait", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout) == {"deleted": ["e"], "kept": []}
    assert json.loads(result.stderr)["error"]["code"] == "NotFound"
    assert fake.requests("DeleteEndpoint") == [{"EndpointName": "e"}]


def test_delete_asks_on_a_terminal(fake: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.endpoint("e")
    monkeypatch.setattr("ridgeline.cli.delete._on_a_terminal", lambda: True)
    assert run("delete", "e", input="n\n").exit_code == 1
    assert fake.operations() == []
    assert run("delete", "e", "--no-wait", input="y\n").exit_code == 0
    assert "DeleteEndpoint" in fake.operations()
    fake.calls.clear()
    assert run("delete", "e", "--yes", "--keep-model", "--no-wait").exit_code == 0
    assert "DeleteModel" not in fake.operations()


@pytest.fixture
def shared(fake: Any, sdk_tools: Any) -> None:
    """Endpoints a and b of configurations that both name one model, and c on b's configuration."""
    endpoints = {"a": "config-a", "b": "config-b", "c": "config-b"}
    times = {"CreationTime": 1.7e9, "LastModifiedTime": 1.7e9}

    def deleted(kind: str) -> list[str]:
        return [next(iter(body.values())) for body in fake.requests(f"Delete{kind}")]

    def answers(operation: str, body: Callable[[Any], dict[str, Any]]) -> None:
        fake.rules[operation] = lambda call: sdk_tools.Reply(body(call.json))

    def endpoint(name: str) -> dict[str, Any]:
        arn = f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/{name}"
        return {"EndpointName": name, "EndpointArn": arn, "EndpointStatus": "InService"} | times

    def config(name: str) -> dict[str, Any]:
        arn = f"arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/{name}"
        return {"EndpointConfigName": name, "EndpointConfigArn": arn, "CreationTime": 1.7e9}

    variant = {"VariantName": "all", "ModelName": "m"}
    answers(
        "ListEndpoints",
        lambda _: {
            "Endpoints": [endpoint(one) for one in endpoints if one not in deleted("Endpoint")]
        },
    )
    answers(
        "ListEndpointConfigs",
        lambda _: {
            "EndpointConfigs": [
                config(one)
                for one in ("config-a", "config-b")
                if one not in deleted("EndpointConfig")
            ]
        },
    )
    answers(
        "DescribeEndpoint",
        lambda asked: (
            endpoint(asked["EndpointName"])
            | {"EndpointConfigName": endpoints[asked["EndpointName"]]}
        ),
    )
    answers(
        "DescribeEndpointConfig",
        lambda asked: config(asked["EndpointConfigName"]) | {"ProductionVariants": [variant]},
    )


@pytest.mark.usefixtures("shared")
def test_what_others_use_stays_and_is_named(fake: Any, run: Run) -> None:
    first = run("delete", "a", "--no-wait")
    assert fake.requests("DeleteEndpointConfig") == [{"EndpointConfigName": "config-a"}]
    assert "Kept model m, which endpoint configuration config-b names." in first.stderr

    second = run("delete", "b", "--no-wait", "--json")
    kept = ["endpoint configuration config-b, which endpoint c has"]
    assert json.loads(second.stdout)["kept"][:1] == kept
    assert len(fake.requests("DeleteEndpointConfig")) == 1
    assert fake.requests("DeleteModel") == []

    last = run("delete", "c", "--no-wait", "--json")
    assert json.loads(last.stdout) == {"deleted": ["c"], "kept": []}
    assert fake.requests("DeleteEndpointConfig")[1:] == [{"EndpointConfigName": "config-b"}]
    assert fake.requests("DeleteModel") == [{"ModelName": "m"}]


@pytest.mark.usefixtures("shared")
def test_what_only_deleted_ones_share_goes_with_them(fake: Any, run: Run) -> None:
    both = run("delete", "b", "c", "a", "--no-wait", "--json")
    assert json.loads(both.stdout)["kept"] == []
    assert len(fake.requests("DeleteEndpointConfig")) == 2
    assert fake.requests("DeleteModel") == [{"ModelName": "m"}]


@pytest.mark.usefixtures("shared")
def test_what_another_endpoint_is_changing_to_stays(fake: Any, run: Run, sdk_tools: Any) -> None:
    plain = fake.rules["DescribeEndpoint"]

    def changing(call: Any) -> Any:
        reply = plain(call)
        if call.json["EndpointName"] == "b":
            pending = {"EndpointConfigName": "config-a"}
            return sdk_tools.Reply(reply.body | {"PendingDeploymentSummary": pending})
        return reply

    fake.rules["DescribeEndpoint"] = changing
    result = run("delete", "a", "--no-wait", "--json")
    [first, *_] = json.loads(result.stdout)["kept"]
    assert first == "endpoint configuration config-a, which endpoint b has"
    assert fake.requests("DeleteEndpointConfig") == []
