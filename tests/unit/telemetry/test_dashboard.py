"""The dashboard and the scrape configuration name only what is really exported and served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ridgeline_backends.engine import EngineStats
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.scraping import ROOT, TARGETS
from ridgeline_service.serving.llm.metrics import ReplicaMetrics

FOLDER = Path(__file__).parents[3] / "infra" / "grafana"
NAME = re.compile(r"\b(?:vllm:|ridgeline_|process_)\w+")
LABEL = re.compile(r"(\w+)=~?\"")
DISCOVERED = {"endpoint", "variant", "replica"}

# What vLLM's own dashboards read: https://docs.vllm.ai/en/stable/usage/metrics/
EXPECTED = """
    time_to_first_token_seconds_bucket inter_token_latency_seconds_bucket
    time_per_output_token_seconds_bucket e2e_request_latency_seconds_bucket
    request_queue_time_seconds_sum request_prefill_time_seconds_sum
    request_decode_time_seconds_sum request_inference_time_seconds_sum
    request_prompt_tokens_bucket request_generation_tokens_bucket
    request_params_max_tokens_bucket iteration_tokens_total_bucket
    num_requests_running num_requests_waiting kv_cache_usage_perc
    prefix_cache_queries_total prefix_cache_hits_total num_preemptions_total
    prompt_tokens_total generation_tokens_total request_success_total
    spec_decode_num_drafts_total spec_decode_num_draft_tokens_total
    spec_decode_num_accepted_tokens_total
"""


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "serving.json").read_text())
    return found


def expressions() -> list[str]:
    variables = [item.get("definition", "") for item in dashboard()["templating"]["list"]]
    panels = dashboard()["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])] + variables


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Names of samples, each with its labels."""
    replica = ReplicaMetrics()
    model = replica.open("m", EngineStats)
    model.rejected("x")
    gateway = Metrics()
    gateway.requests.labels("openai", "e", "", 200).inc()
    gateway.seconds.labels("openai", "e", "").observe(1)
    gateway.rate_limited.labels("requests").inc()
    gateway.retries.labels("e").inc()
    for gauge in (gateway.in_flight, gateway.queued, gateway.spooled):
        gauge.labels("e").inc()
    found: dict[str, set[str]] = {}
    for text in (replica.exposition(), gateway.render()):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_of_the_dashboard_is_exported(exported: dict[str, set[str]]) -> None:
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(named) > 30
    assert named - set(exported) == set()


def test_every_label_that_a_panel_selects_by_is_there(exported: dict[str, set[str]]) -> None:
    for expression in expressions():
        for name, selector in re.findall(r"([\w:]+)\{([^}]*)\}", expression):
            missing = set(LABEL.findall(selector)) - exported[name] - DISCOVERED
            assert not missing, expression


def test_vllms_names_are_there(exported: dict[str, set[str]]) -> None:
    assert {f"vllm:{name}" for name in EXPECTED.split()} - set(exported) == set()
    assert exported["vllm:request_success_total"] == {"model_name", "engine", "finished_reason"}


def test_the_dashboard_can_be_imported() -> None:
    found = dashboard()
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not places & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        places |= cells
    variables = {item["name"] for item in found["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(found["panels"]))) - {"__rate_interval"}
    assert used == variables


def test_the_scrape_configuration_asks_where_the_gateway_answers() -> None:
    gateway, replicas = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    assert gateway.get("metrics_path", "/metrics") == ROOT
    [discovery] = replicas["http_sd_configs"]
    assert discovery["url"].endswith(TARGETS)
    for part in (gateway, replicas, discovery):
        assert part["authorization"]["credentials_file"]
    # Prometheus 2.42 sends the bare key to a discovery that names no type.
    assert discovery["authorization"]["type"] == "Bearer"
