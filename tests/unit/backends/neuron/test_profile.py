"""A trace of one step: its operations follow one another and take what is predicted."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.commands import app, profile
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.placement import place
from ridgeline_backends.neuron.profile import trace
from ridgeline_backends.neuron.timing.predict import predict


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Any], float]:
    """Of a decode step, with its predicted microseconds."""
    placement = place("inf2.xlarge", 2, None)
    neuron = NeuronConfig(tp_degree=2, seq_len=256, fused_qkv=True)
    config = find("smollm2-135m-instruct", "decoders").config
    program = build_decoder(config, neuron, phase=Phase.TOKEN_GENERATION, bucket=256)
    taken = predict(program, placement.machine).seconds * 1e6
    return trace(program, placement.machine, 2), taken


def test_operations_fill_the_step_without_gaps(found: tuple[dict[str, Any], float]) -> None:
    events = [one for one in found[0]["traceEvents"] if one["ph"] == "X" and one["pid"] == 1]
    operations = [one for one in events if one["tid"] == 0]
    for one, following in pairwise(operations):
        assert one["ts"] + one["dur"] == pytest.approx(following["ts"], abs=1e-2)
    last = operations[-1]
    assert last["ts"] + last["dur"] == pytest.approx(found[1], rel=1e-3)
    reduces = [one for one in operations if one["name"] == "all_reduce"]
    assert {one["args"]["layer"].split(".")[1] for one in reduces} == {str(i) for i in range(30)}


def test_parts_lie_within_their_operation(found: tuple[dict[str, Any], float]) -> None:
    events = [one for one in found[0]["traceEvents"] if one["ph"] == "X" and one["pid"] == 0]
    spans = {one["ts"]: one["dur"] for one in events if one["tid"] == 0}
    parts = [one for one in events if one["tid"]]
    assert parts
    assert all(one["dur"] <= spans[one["ts"]] for one in parts)
    names = {
        one["tid"]: one["args"]["name"]
        for one in found[0]["traceEvents"]
        if one["name"] == "thread_name"
    }
    assert {"Tensor engine", "DMA weights", "Collectives"} <= {names[one["tid"]] for one in parts}


def test_the_command_writes_what_perfetto_reads(tmp_path: Path) -> None:
    output = tmp_path / "trace.json"
    said = CliRunner().invoke(
        app, ["profile", "smollm2-135m-instruct", "-o", str(output), "--seq", "128"]
    )
    assert said.exit_code == 0, said.output
    assert json.loads(output.read_text())["otherData"]["phase"] == "token_generation"


def test_a_trace_is_named_after_its_model_where_no_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    config = find("smollm2-135m-instruct", "decoders").config
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    for model in ("smollm2-135m-instruct", "mine", "mine/config.json"):
        said = CliRunner().invoke(app, ["profile", model, "--seq", "128"])
        assert said.exit_code == 0, said.output
    for more in (["mine", "--prompt"], ["bge-small"]):
        said = CliRunner().invoke(app, ["profile", *more, "--seq", "128"])
        assert said.exit_code == 0, said.output
    traces = {one.name for one in tmp_path.glob("*.trace.json")}
    assert traces == {
        "smollm2-135m-instruct.token_generation.trace.json",
        "mine.token_generation.trace.json",
        "config.token_generation.trace.json",
        "mine.context_encoding.trace.json",
        "bge-small.encoding.trace.json",
    }


@pytest.mark.parametrize("given", [["llama-3.3-70b"], ["bert-large", "--batch", "4096"]])
def test_what_does_not_fit_is_not_drawn(tmp_path: Path, given: list[str]) -> None:
    output = tmp_path / "trace.json"
    done = CliRunner().invoke(app, ["profile", *given, "-o", str(output)])
    assert isinstance(done.exception, DoesNotFit), done.output
    assert "inf2.xlarge at tp_degree 2" in done.exception.message
    assert "model constants (weights)" in done.exception.message
    assert "--tp" in done.exception.hint
    assert "--instance" in done.exception.hint
    assert not output.exists()


def test_a_place_that_cannot_be_written_is_refused_before_anything_else(tmp_path: Path) -> None:
    for output in (tmp_path / "nowhere" / "x.json", tmp_path):
        done = CliRunner().invoke(app, ["profile", "nobodys-model", "-o", str(output)])
        assert isinstance(done.exception, InvalidInput), done.output
        assert f"--output {output} cannot be written" in done.exception.message


DEVICE = {
    "instance_type": "inf2.xlarge",
    "neuron_cores": 2,
    "logical_neuroncore_config": 1,
    "config": {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
               "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 256,
               "max_position_embeddings": 256},
    "neuron_config": {"tp_degree": 2, "batch_size": 2, "seq_len": 256},
    "calls": [{"phase": "token_generation", "bucket": 256, "batch": 2}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tp", "2"], "--tp is of models"),
        (["--batch", "1", "--instance", "inf2.xlarge"], "--instance and --batch are of models"),
    ],
)
def test_an_endpoint_is_profiled_as_it_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.setattr(profile, "_device", lambda name, _: DEVICE)
    given = ["profile", "my-endpoint", "-o", str(tmp_path / "trace.json")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, [*given, *options])
    assert isinstance(refused.exception, InvalidInput), refused.output
    assert said in refused.exception.message
    assert "profiled as it is compiled" in refused.exception.message


def test_an_instance_tells_a_public_model_from_an_endpoint_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "_device", lambda name, _: DEVICE)
    given = ["profile", "smollm2-135m", "-o", str(tmp_path / "trace.json"), "--seq", "128"]
    done = CliRunner().invoke(app, [*given, "--instance", "trn1.2xlarge", "--tp", "1"])
    assert done.exit_code == 0, done.output
    assert "1 cores of trn1.2xlarge" in done.stderr
