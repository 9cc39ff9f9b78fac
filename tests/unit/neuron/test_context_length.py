"""No decoder is compiled or simulated beyond the length that it is made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer import Typer
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import DoesNotFit, InvalidModel
from ridgeline_backends.neuron.builders.configs import context_length
from ridgeline_backends.neuron.catalogue import DATA, aliases, entries, published_length
from ridgeline_backends.neuron.commands import app
from ridgeline_backends.neuron.commands.compile import compile_model
from ridgeline_backends.neuron.commands.models import config_of

SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 640,
}
SHAPES = {name: value for name, value in SMALL.items() if name != "architectures"}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 320}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SMALL, 640),
        ({**SMALL, "rope_scaling": YARN}, 1280),
        (SHAPES, 640),
        ({**SHAPES, "rope_scaling": YARN}, 1280),
        ({**SHAPES, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, 1280),
        # Written after the scaling.
        ({**SHAPES, "rope_scaling": {**YARN, "original_max_position_embeddings": 160}}, 640),
        ({**SHAPES, "rope_scaling": {"type": "linear", "factor": 4.0}}, 640),
        ({"model_type": "llava", "text_config": SHAPES}, 640),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({**SHAPES, "max_position_embeddings": None}, None),
        ({"model_type": "bloom", "seq_length": 2048}, None),
    ],
)
def test_the_length_that_a_config_says(config: dict[str, Any], expected: int | None) -> None:
    assert context_length(config) == expected


def test_a_length_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(InvalidModel, match="max_position_embeddings"):
        context_length({**SHAPES, "max_position_embeddings": "long"})


def compiled(folder: Path, *more: str) -> Result:
    file = folder / "config.json"
    file.write_text(json.dumps(SMALL))
    command = Typer()
    command.command()(compile_model)
    given = [str(file), "--instance", "inf2.xlarge", "--cache", str(folder / "cache"), "--json"]
    return CliRunner().invoke(command, [*given, *more])


def test_compile_refuses_what_the_endpoint_would_refuse(tmp_path: Path) -> None:
    refused = compiled(tmp_path, "--seq", "641").exception
    assert isinstance(refused, DoesNotFit)
    assert "seq_len 641 is above the model's context length 640" in refused.message
    assert "--seq" in refused.hint
    whole = json.loads(compiled(tmp_path).stdout)
    assert max(one["bucket"] for one in whole["modules"]) == 640


def simulated(model: str, *more: str) -> Result:
    given = ["simulate", model, "--instance", "inf2.xlarge", "--rps", "1", "--requests", "20"]
    return CliRunner().invoke(app, [*given, "--json", *more])


def test_simulate_refuses_prompts_and_answers_that_are_too_long(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL))
    refused = simulated(str(file), "--prompt", "512", "--answer", "129").exception
    assert isinstance(refused, InvalidInput)
    assert "641 tokens are above the context length 640" in refused.message
    done = simulated(str(file), "--prompt", "512", "--answer", "128")
    assert done.exit_code == 0, done.output


def test_profile_refuses_too(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL))
    given = ["profile", str(file), "-o", str(tmp_path / "trace.json"), "--seq", "641"]
    done = CliRunner().invoke(app, given)
    assert isinstance(done.exception, DoesNotFit)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("smollm2-135m", 8192),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 8192),
        ("llama-3-8b", 8192),
        ("llama-3.1-8b", 131072),
        ("Llama-3.1-8B-Instruct", 131072),
        ("gpt2", 1024),
        ("bloom-560m", None),
    ],
)
def test_public_models_have_the_length_of_their_own_name(model: str, expected: int | None) -> None:
    assert context_length(config_of(model)) == expected


def test_every_published_length_is_of_one_known_name() -> None:
    listed = yaml.safe_load((DATA / "context_lengths.yaml").read_text())
    names = [name for several in listed.values() for name in several]
    assert len(set(names)) == len(names)
    assert set(names) <= {*entries("decoders"), *entries("encoders"), *aliases()}


@pytest.mark.parametrize("model", ["llama-2-7b-32k", "Llama-3-8B-Instruct-1048k", "nobodys"])
def test_a_name_with_a_length_of_its_own_has_no_other(model: str) -> None:
    assert published_length(model) is None
