"""A row of a plan deployed as it says: two copies of a model on the cores of one simulated chip."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e
NAME = "two-copies"
QUESTIONS = ("Name a colour.", "Name a planet.", "Name a fruit.")


def test_a_planned_setting_is_deployed_as_the_plan_says(service: Service) -> None:
    planned = _planned(service)
    environment = planned["environment"]
    assert environment["OPTION_DATA_PARALLEL_SIZE"] == "2"
    service.deploy(NAME, "smollm2-135m-instruct", instance_type="ml.inf2.xlarge", **environment)
    try:
        _runs_as_planned(service, planned)
        _answers_the_same_on_each_copy(service)
    finally:
        service.delete(NAME)


def _planned(service: Service) -> dict[str, Any]:
    asked = ("plan", "smollm2-135m", "--prompt", "64", "--answer", "64", "--json")
    options: list[dict[str, Any]] = json.loads(service.cli(*asked).stdout)["options"]
    wanted = {"instance_type": "inf2.xlarge", "tp": 1, "batch": 8, "weights": "bf16"}
    [found] = [one for one in options if wanted.items() <= one.items()]
    return found


def _runs_as_planned(service: Service, planned: dict[str, Any]) -> None:
    [replica] = json.loads(service.cli("describe", NAME, "--json").stdout)["Ridgeline"]["simulated"]
    device = replica["device"]
    assert (device["data_parallel_size"], device["neuron_cores"]) == (2, 1)
    first, step = (one for one in device["calls"] if one["bucket"] == 128)
    assert (first["phase"], step["phase"]) == ("context_encoding", "token_generation")
    assert (first["batch"], step["batch"]) == (1, 8)
    assert first["seconds"] == pytest.approx(planned["ttft_s"][1], rel=1e-3)
    # A token of a full batch waits for its share of the prompts of the seven others.
    share = first["seconds"] * 7 / 64
    assert step["seconds"] + share == pytest.approx(planned["tpot_s"][1], rel=1e-3)


def _answers_the_same_on_each_copy(service: Service) -> None:
    """Six requests at once take both; each prompt is asked twice and answered alike."""
    client = OpenAI(
        base_url=service.variables["OPENAI_BASE_URL"], api_key=service.api_key, max_retries=0
    )

    def answer(question: str) -> str:
        found = client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=12,
        )
        return found.choices[0].message.content or ""

    with ThreadPoolExecutor(6) as pool:
        texts = list(pool.map(answer, QUESTIONS * 2))
    assert all(texts)
    assert texts[:3] == texts[3:]
