"""SmolLM2 on a simulated Inferentia2: it answers as the CPU endpoint does, and says what it is."""

from __future__ import annotations

import pytest
from openai import OpenAI
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e
NEURON, CPU = "on-neuron", "on-cpu"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_a_simulated_endpoint_answers_as_the_processor_does(service: Service) -> None:
    service.deploy(CPU, "smollm2-135m-instruct")
    service.deploy(NEURON, "smollm2-135m-instruct", instance_type="ml.inf2.xlarge")
    client = OpenAI(
        base_url=service.variables["OPENAI_BASE_URL"], api_key=service.api_key, max_retries=0
    )
    try:
        texts = {
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
    finally:
        service.delete(CPU)
        service.delete(NEURON)
