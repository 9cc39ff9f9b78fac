"""``ridgeline ls``, ``describe`` and ``logs`` of endpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
STREAM = "POST /endpoints/e/invocations-response-stream"


class TestEndpoints:
    def test_ls(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        def item(name: str) -> dict[str, Any]:
            arn = f"arn:aws:sagemaker:us-east-1:1:endpoint/{name}"
            times = {"CreationTime": 1.7e9, "LastModifiedTime": 1.7e9}
            return {"EndpointName": name, "EndpointArn": arn, "EndpointStatus": "Failed", **times}

        first = sdk_tools.Reply({"Endpoints": [item("a-long-name" * 5)], "NextToken": "t"})
        fake.on("ListEndpoints", first, sdk_tools.Reply({"Endpoints": [item("b")]}))
        lines = run("ls").stdout.splitlines()
        assert lines[0].split() == ["NAME", "STATUS", "CREATED"]
        assert [line.split()[:2] for line in lines[1:]] == [
            ["a-long-name" * 5, "Failed"],
            ["b", "Failed"],
        ]
        fake.on("ListEndpoints", sdk_tools.Reply({"Endpoints": [item("b")]}))
        (listed,) = json.loads(run("ls", "--json").stdout)
        assert (listed["name"], listed["status"]) == ("b", "Failed")
        assert run("--json", "ls").stdout == run("ls", "--json").stdout

    def test_ls_of_nothing(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.on("ListEndpoints", sdk_tools.Reply({"Endpoints": []}))
        result = run("ls")
        assert result.stdout == ""
        assert "ridgeline zoo ls" in result.stderr
        assert json.loads(run("ls", "--json").stdout) == []

    def test_a_filter_without_a_match_says_so(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.on("ListEndpoints", sdk_tools.Reply({"Endpoints": []}))
        result = run("ls", "zzz")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "No endpoint whose name contains 'zzz'" in result.stderr
        fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": []})
        result = run("zoo", "ls", "zzz")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "No model matches 'zzz'" in result.stderr

    def test_an_endpoint_that_is_not_there_has_a_next_step(
        self, fake: Any, run: Run, sdk_tools: Any
    ) -> None:
        absent = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "e".')
        fake.rules["DescribeEndpoint"] = absent
        fake.rules[STREAM] = sdk_tools.aws_error("ValidationError", "Endpoint e not found.")
        for command in (("delete", "e", "--yes"), ("chat", "e", "x")):
            assert "`ridgeline ls` lists endpoints." in run(*command).stderr

    def test_describe_of_a_simulated_device(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        call = {"seconds": 0.004, "low": 0.003, "high": 0.005, "core_utilization": 0.01}
        call |= {"bucket": 128, "batch": 1, "collective_share": 0.4}
        phases = {
            "context_encoding": {},
            "token_generation": {"usd_per_million_tokens": 0.5},
            "encoding": {"usd_per_million_tokens": 0.0011, "batch": 16},
        }
        device = {
            "instance_type": "inf2.xlarge",
            "neuron_cores": 2,
            "logical_neuroncore_config": 1,
            "data_parallel_size": 3,
            "label": "calibrated",
            "pace": "real-time",
            "core_memory_bytes": {"model constants": 1 << 20},
            "core_memory_bytes_available": 16 << 30,
            "calls": [{**call, "phase": phase, **more} for phase, more in phases.items()],
        }
        replicas = [{"id": "r1", "variant": "A", "device": device}]
        fake.endpoint("e")
        fake.on("GET /api/endpoints/e/simulated", sdk_tools.Reply({"replicas": replicas}))
        text = run("describe", "e").stdout
        assert "3 copies of the model, each on 2 NeuronCores at LNC 1, times calibrated" in text
        assert "calibrated, answers at its pace" in text
        assert "4.00 ms (3.00 - 5.00)" in text
        assert "40% collectives, $0.50 per million tokens" in text
        assert "a call, texts of up to (batch 16):" in text
        assert "40% collectives, $0.0011 per million tokens" in text
        assert "1.0 of 16384 (model constants 1.0)" in text
        body = json.loads(run("describe", "e", "--json").stdout)
        assert body["Ridgeline"]["simulated"] == replicas
        fake.on(
            "GET /api/endpoints/e/simulated",
            sdk_tools.Reply({"error": {"code": "InvalidInput", "message": "no", "hint": ""}}, 400),
        )
        assert "simulated" not in run("describe", "e").stdout

    def test_describe(self, fake: Any, run: Run) -> None:
        view = {
            "name": "e",
            "status": "InService",
            "stages": [{"name": "load", "seconds": 1.25, "state": "done"}],
            "replicas": [{"id": "r1", "variant": "blue", "status": "ready"}],
        }
        fake.endpoint("e", view)
        text = run("describe", "e").stdout
        assert "e: InService" in text
        assert "stage load: done 1.2 s" in text
        assert "replica blue/r1: ready" in text
        body = json.loads(run("describe", "e", "--json").stdout)
        assert body["EndpointStatus"] == "InService"
        assert body["Ridgeline"]["stages"] == view["stages"]

    def test_describe_says_what_a_replica_waits_for(self, fake: Any, run: Run) -> None:
        words = "Waiting for a running instance to end."
        replicas = [
            {"id": "r1", "variant": "all", "status": "pending", "message": words},
            {"id": "r2", "variant": "all", "status": "ready", "message": "Requested"},
        ]
        fake.endpoint("e", {"name": "e", "status": "Creating", "replicas": replicas})
        text = run("describe", "e").stdout
        assert f"  replica all/r1: pending, {words}\n" in text
        assert "  replica all/r2: ready\n" in text

    def test_describe_of_an_unknown_endpoint(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        absent = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "e".')
        fake.rules["DescribeEndpoint"] = absent
        for command in (("describe", "e"), ("delete", "e", "--yes"), ("logs", "e")):
            fake.rules["DescribeLogStreams"] = sdk_tools.aws_error(
                "ResourceNotFoundException", "no group"
            )
            result = run(*command)
            assert result.exit_code == 4
            assert '"e"' in result.stderr or "'e'" in result.stderr

    @pytest.mark.parametrize("name", ["bad_name", "a" * 64, ""])
    @pytest.mark.parametrize("command", ["describe", "scale", "stop"])
    def test_a_name_that_nothing_can_have_is_not_found(
        self, fake: Any, run: Run, command: str, name: str
    ) -> None:
        result = run(command, name)
        assert result.exit_code == 4
        assert repr(name) in result.stderr
        assert "`ridgeline " in result.stderr
        assert fake.calls == []

    def test_logs(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.on("DescribeLogStreams", sdk_tools.Reply({"logStreams": [{"logStreamName": "b/1"}]}))
        events = [{"timestamp": 1_700_000_000_123, "message": "hello"}]
        fake.on("GetLogEvents", sdk_tools.Reply({"events": events, "nextForwardToken": "t"}))
        assert run("logs", "e").stdout == "hello\n"
        assert run("logs", "e", "-t").stdout == "2023-11-14T22:13:20.123Z b/1  hello\n"
        line = json.loads(run("logs", "e", "--json", "-n", "1").stdout)
        assert (line["stream"], line["message"]) == ("b/1", "hello")
        assert fake.requests("GetLogEvents")[-1]["limit"] == 1

    def test_logs_of_an_endpoint_that_wrote_nothing(
        self, fake: Any, run: Run, sdk_tools: Any
    ) -> None:
        fake.endpoint("e")
        fake.rules["DescribeLogStreams"] = sdk_tools.aws_error(
            "ResourceNotFoundException", "no group"
        )
        result = run("logs", "e")
        assert (result.exit_code, result.stdout) == (0, "")
