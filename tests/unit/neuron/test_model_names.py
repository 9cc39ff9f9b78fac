"""A model as commands name it: what is meant, what is refused, and what is offered instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput, NotFound
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder
from ridgeline_backends.neuron.commands import app
from ridgeline_backends.neuron.commands.models import config_of


def hint(model: str, *, encoders: bool = True) -> str:
    with pytest.raises(NotFound, match="not known") as refused:
        config_of(model, encoders=encoders)
    return refused.value.hint


def offered(model: str, *, encoders: bool = True) -> list[str]:
    """The names of the question; none where there is none."""
    return re.findall(r"'([^']+)'", hint(model, encoders=encoders))


@pytest.mark.parametrize("model", ["lama-3.1-8b", "meta-llama/lama-3.1-8B", "llama-3.1-9b"])
def test_a_typo_is_no_other_model(model: str) -> None:
    assert hint(model).startswith("Did you mean 'llama-3.1-8b'?")


def test_a_size_alone_is_no_model() -> None:
    assert "config.json" in hint("nobodys-8b")


@pytest.mark.parametrize("model", ["gpt-4", "bert", "llama2", "llama"])
def test_no_name_is_offered_twice(model: str) -> None:
    names = [name.replace("-", "").replace(" ", "") for name in offered(model)]
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "model", ["whisper-lage-v3", "t5-larg", "albert", "wav2vec2", "electra-bas", "zun", "deberta"]
)
def test_what_is_offered_can_be_compiled(model: str) -> None:
    for name in offered(model):
        config = config_of(name)
        assert text_encoder(config) is not None or decoder_architecture(config)


def test_encoders_are_offered_where_they_are_taken() -> None:
    assert offered("bge-larg") == ["bge-large"]
    assert "bert-base" in hint("nobodys-8b")
    assert "bert-base" not in hint("nobodys-8b", encoders=False)
    for name in offered("bge-larg", encoders=False):
        assert text_encoder(config_of(name)) is None


@pytest.mark.parametrize("model", ["", "  "])
def test_an_empty_name_is_said_to_be_missing(model: str) -> None:
    with pytest.raises(InvalidInput, match="name or a path of a model is missing") as refused:
        config_of(model)
    assert refused.value.hint


def test_a_command_refuses_a_typo(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["profile", "smolm2-135m", "-o", str(tmp_path / "x.json")])
    assert isinstance(done.exception, NotFound)
    assert "Did you mean 'smollm2-135m'?" in str(done.exception)
