"""The BERT encoder against transformers, with both kinds of pooling."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from ridgeline_backends.base import EmbeddingRunner, LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.errors import InvalidSampling, PromptTooLong, UnsupportedModel
from ridgeline_backends.models.reader import read_json

SENTENCES = [[random.Random(n).randrange(100) for _ in range(n)] for n in (1, 2, 7, 30, 64)]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def load(model_dir: Path, **spec: object) -> EmbeddingRunner:
    backend = CpuBackend()
    plan = backend.plan(read_json(model_dir / "config.json"), LoadSpec(**spec))  # type: ignore[arg-type]
    runner = backend.load(backend.compile(model_dir, plan))
    assert isinstance(runner, EmbeddingRunner)
    return runner


def pooling(model_dir: Path, **modes: bool) -> None:
    folder = model_dir / "1_Pooling"
    folder.mkdir(exist_ok=True)
    names = {f"pooling_mode_{name}": on for name, on in modes.items()}
    (folder / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **names}))


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_vectors_are_those_of_transformers(model_dir: Path, mode: str):
    pooling(model_dir, **{"mean_tokens": False, "cls_token": False, mode: True})
    runner = load(model_dir)
    vectors = torch.tensor(runner.embed(SENTENCES))
    reference = BertModel.from_pretrained(model_dir)
    for tokens, vector in zip(SENTENCES, vectors, strict=True):
        with torch.inference_mode():
            hidden = reference(torch.tensor([tokens])).last_hidden_state[0]
        pooled = hidden.mean(0) if mode == "mean_tokens" else hidden[0]
        expected = torch.nn.functional.normalize(pooled, dim=-1)
        assert (vector - expected).abs().max() < 1e-5
    assert vectors.shape == (len(SENTENCES), runner.dimensions)


def test_a_vector_does_not_depend_on_the_batch(model_dir: Path):
    pooling(model_dir, mean_tokens=True)
    together = load(model_dir).embed(SENTENCES)
    alone = load(model_dir, max_tokens_per_step=64)
    assert [alone.embed([tokens])[0] for tokens in SENTENCES] == together
    assert alone.embed(SENTENCES) == together
    assert alone.embed([]) == []


def test_bad_input_is_refused(model_dir: Path):
    pooling(model_dir, mean_tokens=True)
    runner = load(model_dir)
    with pytest.raises(PromptTooLong, match="65"):
        runner.embed([[1] * 65])
    with pytest.raises(InvalidSampling, match="at least one"):
        runner.embed([[1], []])
    with pytest.raises(InvalidSampling, match="below 100"):
        runner.embed([[100]])


def test_other_pooling_is_refused(model_dir: Path):
    pooling(model_dir, max_tokens=True)
    with pytest.raises(UnsupportedModel, match="pooling_mode_max_tokens"):
        load(model_dir)
