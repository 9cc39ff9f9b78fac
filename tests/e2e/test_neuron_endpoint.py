"""SmolLM2 on a simulated Inferentia2: it answers as the CPU endpoint does, and says what it is."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai import OpenAI
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e
NEURON, AGAIN, CPU = "on-neuron", "on-neuron-again", "on-cpu"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_a_simulated_endpoint_answers_as_the_processor_does(service: Service) -> None:
    service.deploy(CPU, "smollm2-135m-instruct")
    service.deploy(NEURON, "smollm2-135m-instruct", instance_type="ml.inf2.xlarge")
    client = OpenAI(
        base_url=service.variables["OPENAI_BASE_URL"], api_key=service.api_key, max_retries=0
    )
    try:
        texts: dict[str, str | None] = {
            name: client.chat.completions.create(
                model=name, messages=QUESTION, temperature=0, max_tokens=12
            )
            .choices[0]
            .message.content
            for name in (CPU, NEURON)
        }
        assert texts[NEURON] == texts[CPU]
        assert "Paris" in (texts[NEURON] or "")
        logs = service.client("logs")
        group = f"/aws/sagemaker/Endpoints/{NEURON}"
        [stream] = logs.describe_log_streams(logGroupName=group)["logStreams"]
        events = logs.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
        )["events"]
        assert any("2 logical cores of inf2.xlarge" in event["message"] for event in events)
        _compiles_nothing_a_second_time(service)
        _two_may_write_the_same_modules(service)
        _says_what_it_would_have_taken(service, client)
        _is_watched_from_the_command_line(service)
        _is_described_and_profiled(service)
        _fails_on_demand(service)
    finally:
        service.delete(CPU)
        service.delete(NEURON)


def _compiles_nothing_a_second_time(service: Service) -> None:
    """The first replica put its modules into the object store, the next one has them from there."""
    assert "compile: 10 of 10 buckets (s3://" in service.cli("logs", NEURON).stdout
    service.deploy(
        AGAIN,
        "smollm2-135m-instruct",
        instance_type="ml.inf2.xlarge",
        RIDGELINE_PACE="real-time",
    )
    try:
        shown = json.loads(service.cli("describe", AGAIN, "--json").stdout)["Ridgeline"]
        [detail] = [one["detail"] for one in shown["stages"] if one["name"] == "compile"]
        assert detail.startswith("0 of 10 buckets, all from cache (s3://")
        assert f"compile: {detail}" in service.cli("logs", AGAIN).stdout
        text = service.cli("describe", AGAIN).stdout
        assert detail in text
        assert "answers at its pace" in text
    finally:
        service.delete(AGAIN)


def _two_may_write_the_same_modules(service: Service) -> None:
    place = "s3://a-cache-of-its-own/neuron"
    given = ("compile", "smollm2-135m", "--instance", "inf2.xlarge", "--cache", place, "--json")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: json.loads(service.cli(*given).stdout), range(2))
    assert first["modules"] == second["modules"]
    third = service.cli(*given)
    assert json.loads(third.stdout)["cached"] == len(first["modules"])
    assert f"0 of {len(first['modules'])} buckets, all from cache ({place})" in third.stderr
    kept = service.client("s3").list_objects_v2(Bucket="a-cache-of-its-own")["Contents"]
    assert len(kept) == len(first["modules"])


def _says_what_it_would_have_taken(service: Service, client: OpenAI) -> None:
    """boto3 finds it in a header, OpenAI's client in the usage, Prometheus in the metrics."""
    body = json.dumps({"messages": QUESTION, "max_tokens": 8, "temperature": 0})
    answer = service.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=NEURON, Body=body, ContentType="application/json"
    )
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    told = json.loads(headers["x-ridgeline-simulated"])
    assert told == json.loads(answer["Body"].read())["usage"]["ridgeline"]
    assert (told["instance_type"], told["neuron_cores"]) == ("inf2.xlarge", 2)
    for name in ("time_to_first_token_s", "time_per_output_token_s"):
        assert 0 < told[name]["low"] < told[name]["seconds"] < told[name]["high"] < 1
    assert 0 < told["core_utilization"] < 1
    assert 0 < told["collective_share"] < 1
    assert told["usd_per_million_tokens"] > 0
    streamed = client.chat.completions.create(
        model=NEURON,
        messages=QUESTION,
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
    )
    *_, last = streamed
    assert last.usage is not None
    assert (last.usage.model_extra or {})["ridgeline"]["instance_type"] == "inf2.xlarge"


def _is_watched_from_the_command_line(service: Service) -> None:
    look = ("--period", "0.2", "--count", "1")
    [line] = service.cli("neuron", "monitor", NEURON, *look).stdout.splitlines()
    found = json.loads(line)
    assert found["neuron_hardware_info"]["neuron_device_type"] == "inferentia2"
    assert found["system_data"]["memory_info"]["memory_total_bytes"] > 0
    [runtime] = found["neuron_runtime_data"]
    assert Path(f"/proc/{runtime['pid']}").is_dir()
    report = runtime["report"]
    assert sorted(report["neuroncore_counters"]["neuroncores_in_use"]) == ["0", "1"]
    memory = report["memory_used"]["neuron_runtime_used_bytes"]["usage_breakdown"]
    # More than half of the 135 million numbers lie on each core.
    assert memory["neuroncore_memory_usage"]["1"]["constants"] > 134e6
    shares = found["system_data"]["vcpu_usage"]["average_usage"].values()
    assert sum(shares) == pytest.approx(100, abs=1)
    screen = service.cli("neuron", "top", NEURON, *look).stdout
    assert "NC1" in screen
    assert "model code" in screen
    refused = service.cli("neuron", "top", CPU, *look, check=False)
    assert refused.returncode == 4
    assert "stands for a simulated device" in refused.stderr


def _is_described_and_profiled(service: Service) -> None:
    text = service.cli("describe", NEURON).stdout
    assert "simulated inf2.xlarge: 2 NeuronCores at LNC 1, times calibrated" in text
    for said in ("first token, prompts of up to", "each token", "memory of a core", "so far, "):
        assert said in text
    [replica] = json.loads(service.cli("describe", NEURON, "--json").stdout)["Ridgeline"][
        "simulated"
    ]
    calls = replica["device"]["calls"]
    assert [one["bucket"] for one in calls] == [128, 256, 512, 1024, 2048] * 2
    assert all(0 < one["low"] < one["seconds"] < one["high"] < 1 for one in calls)
    assert replica["device"]["so_far"]["generated_tokens"] > 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.json"
        said = service.cli("neuron", "profile", NEURON, "-o", str(path)).stderr
        assert f"endpoint {NEURON} (token_generation, bucket 2048, batch 6) on 2 cores" in said
        trace = json.loads(path.read_text())
    last = max(one["ts"] + one["dur"] for one in trace["traceEvents"] if one["ph"] == "X")
    assert last / 1e6 == pytest.approx(calls[-1]["seconds"], rel=0.01)


def _fails_on_demand(service: Service) -> None:
    """Asked of a replica that runs, it fails with the runtime's statuses; one whose core is lost is
    replaced."""

    def said() -> str:
        body = json.dumps({"messages": QUESTION, "max_tokens": 4})
        try:
            answer = runtime.invoke_endpoint(
                EndpointName=NEURON, Body=body, ContentType="application/json"
            )
        except runtime.exceptions.ModelError as error:
            return str(error.response["OriginalMessage"])
        except runtime.exceptions.ServiceUnavailable as error:
            return str(error)
        return str(answer["Body"].read().decode())

    runtime = service.client("sagemaker-runtime")
    service.cli("neuron", "fault", NEURON, "--kind", "hbm-error", "--after", "2")
    assert "NRT_EXEC_HW_ERR_HBM_UE status=1201" in said()
    # What comes now waits for the replica that takes the place of this one.
    deadline = time.monotonic() + 90
    while "choices" not in (answer := said()):
        assert "no replica that answers" in answer
        assert time.monotonic() < deadline, "nothing took the place of the replica"
    service.cli("neuron", "fault", NEURON, "--kind", "numerical-error", "--every", "1")
    assert "NRT_EXEC_COMPLETED_WITH_NUM_ERR status=1003" in said()
    service.cli("neuron", "fault", NEURON, "--clear")
    assert "choices" in said()
    for arguments, words in (
        ((NEURON, "--kind", "hbm-eror"), "Did you mean 'hbm-error'?"),
        ((NEURON, "--kind", "allocation-failure"), "RIDGELINE_NEURON_FAULT=allocation-failure"),
        ((CPU, "--kind", "hbm-error"), "stands for no simulated device"),
        (("nobody", "--kind", "hbm-error"), "Could not find endpoint"),
    ):
        refused = service.cli("neuron", "fault", *arguments, check=False)
        assert refused.returncode != 0
        assert words in refused.stderr
