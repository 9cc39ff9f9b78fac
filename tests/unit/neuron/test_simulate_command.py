"""`ridgeline neuron simulate`: a load on an instance, in words and as JSON."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.neuron.commands import app

SMALL = ("simulate", "smollm2-135m", "--instance", "inf2.xlarge", "--requests", "60")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_table_has_percentiles_and_both_ends_of_the_interval() -> None:
    said = run(*SMALL, "--rps", "3", "--tp", "2")
    assert "1 x TP 2 on inf2.xlarge" in said
    assert "3 requests a second" in said
    for line in ("ttft p99 ms", "inter-token p50 ms", "USD/M tokens"):
        assert line in said


def test_more_replicas_share_the_load() -> None:
    one, two = (
        json.loads(run(*SMALL, "--clients", "8", "--tp", "1", "--replicas", str(n), "--json"))
        for n in (1, 2)
    )
    assert two["ttft_p50_s"] < one["ttft_p50_s"]
    assert one["tokens_s"] < two["tokens_s"]
    assert one["if_every_step_is_at_its_low"]["tokens_s"] > one["tokens_s"]


def test_host_work_before_each_step_makes_tokens_slower() -> None:
    beside, before = (
        json.loads(run(*SMALL, "--rps", "1", "--json", *extra))["inter_token_p50_s"]
        for extra in ((), ("--sync",))
    )
    assert before > beside


def test_weights_are_in_8_bits_where_asked_for_and_the_title_says_which() -> None:
    load = ("simulate", "llama-3.1-8b", "--instance", "inf2.xlarge", "--rps", "0.5", "--json")
    wide, narrow = (
        json.loads(run(*load, "--requests", "20", *extra)) for extra in ((), ("--quantize", "int8"))
    )
    assert "batch 8, weights bf16:" in wide["setting"]
    assert "batch 8, weights int8:" in narrow["setting"]
    assert narrow["inter_token_p50_s"] < 0.8 * wide["inter_token_p50_s"]


def test_what_cannot_be_is_refused_with_what_to_change() -> None:
    with pytest.raises(InvalidInput, match="--rps or --clients"):
        run(*SMALL)
    with pytest.raises(InvalidInput, match="2 copies of 2 cores are more than the 2"):
        run(*SMALL, "--rps", "1", "--tp", "2", "--replicas", "2")
    with pytest.raises(DoesNotFit, match=r"has 16384\.0MB on inf2\.xlarge"):
        run("simulate", "llama-3.1-70b", "--instance", "inf2.xlarge", "--rps", "1")
