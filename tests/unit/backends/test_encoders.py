"""The encoders against transformers: vectors of every family, and scores of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from encoder_families import FAMILIES, SENTENCES, SHAPE
from random_models import save_random
from transformers import AutoModel, BertConfig, BertForSequenceClassification, BertModel

from ridgeline_backends.base import LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner, TokenPair
from ridgeline_backends.errors import InvalidSampling, PromptTooLong, UnsupportedModel
from ridgeline_backends.models.reader import read_json


def load(model_dir: Path, **spec: object) -> object:
    backend = CpuBackend()
    plan = backend.plan(read_json(model_dir / "config.json"), LoadSpec(**spec))  # type: ignore[arg-type]
    assert not plan.generic
    return backend.load(backend.compile(model_dir, plan))


def embedder(model_dir: Path, **spec: object) -> EmbeddingRunner:
    runner = load(model_dir, **spec)
    assert isinstance(runner, EmbeddingRunner)
    return runner


def pooling(model_dir: Path, **modes: bool) -> None:
    folder = model_dir / "1_Pooling"
    folder.mkdir(exist_ok=True)
    names = {f"pooling_mode_{name}": on for name, on in modes.items()}
    (folder / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **names}))


def modules(model_dir: Path, *kinds: str) -> None:
    listed = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (model_dir / "modules.json").write_text(json.dumps(listed))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    save_random(BertModel, BertConfig(**SHAPE), tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_are_those_of_transformers(name: str, tmp_path: Path):
    kind, _, config = FAMILIES[name]
    model = save_random(kind, config, tmp_path)
    runner = embedder(tmp_path)
    vectors = torch.tensor(runner.embed(SENTENCES))
    assert vectors.shape == (len(SENTENCES), runner.dimensions)
    for tokens, vector in zip(SENTENCES, vectors, strict=True):
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=-1)
        assert (vector - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_of_pairs_are_those_of_transformers(name: str, tmp_path: Path):
    _, kind, config = FAMILIES[name]
    scoring = type(config)(**{**config.to_dict(), "num_labels": 1})
    model = save_random(kind, scoring, tmp_path)
    runner = load(tmp_path)
    assert isinstance(runner, RerankRunner)
    pairs = [
        TokenPair(tokens, [0] * (len(tokens) // 2) + [1] * (len(tokens) - len(tokens) // 2))
        for tokens in SENTENCES
    ]
    scores = runner.score(pairs)
    assert max(scores) - min(scores) > 0.05, "scores that are all alike prove nothing"
    for pair, score in zip(pairs, scores, strict=True):
        inputs = {"input_ids": torch.tensor([pair.token_ids])}
        if name.startswith("bert"):
            inputs["token_type_ids"] = torch.tensor([pair.type_ids])
        with torch.inference_mode():
            expected = torch.sigmoid(model(**inputs).logits[0, 0])
        assert abs(score - float(expected)) < 1e-5
    assert [runner.score([pair])[0] for pair in pairs] == scores


def test_the_second_text_of_a_pair_is_told_from_the_first(tmp_path: Path):
    save_random(BertForSequenceClassification, BertConfig(num_labels=1, **SHAPE), tmp_path)
    runner = load(tmp_path)
    assert isinstance(runner, RerankRunner)
    tokens = SENTENCES[2]
    one, other = runner.score([TokenPair(tokens, [0] * 7), TokenPair(tokens, [0] * 3 + [1] * 4)])
    assert one != other


def test_the_last_function_is_the_one_that_the_model_names(tmp_path: Path):
    save_random(BertForSequenceClassification, BertConfig(num_labels=1, **SHAPE), tmp_path)
    path = tmp_path / "config.json"
    config = read_json(path)

    def score(**settings: object) -> float:
        path.write_text(json.dumps({**config, **settings}))
        runner = load(tmp_path)
        assert isinstance(runner, RerankRunner)
        return runner.score([TokenPair(SENTENCES[3], [0] * 30)])[0]

    raw = score(sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    older = score(sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    assert raw == older
    assert score() == pytest.approx(float(torch.sigmoid(torch.tensor(raw).double())))
    with pytest.raises(UnsupportedModel, match="Softmax"):
        score(sentence_transformers={"activation_fn": "torch.nn.modules.activation.Softmax"})


def test_a_classifier_with_several_labels_is_refused(tmp_path: Path):
    save_random(BertForSequenceClassification, BertConfig(num_labels=3, **SHAPE), tmp_path)
    with pytest.raises(UnsupportedModel, match="3 labels"):
        load(tmp_path)


def test_pooling_by_the_first_token(bert: Path):
    pooling(bert, mean_tokens=False, cls_token=True)
    model = AutoModel.from_pretrained(bert)
    [vector] = torch.tensor(embedder(bert).embed(SENTENCES[3:4]))
    with torch.inference_mode():
        hidden = model(torch.tensor(SENTENCES[3:4])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden[0], dim=-1)
    assert (vector - expected).abs().max() < 1e-5


def test_vectors_keep_their_length_where_the_model_does_not_normalise(bert: Path):
    modules(bert, "Transformer", "Pooling")
    free = torch.tensor(embedder(bert).embed(SENTENCES))
    modules(bert, "Transformer", "Pooling", "Normalize")
    unit = torch.tensor(embedder(bert).embed(SENTENCES))
    assert (free.norm(dim=-1) - 1).abs().min() > 0.1
    assert torch.allclose(torch.nn.functional.normalize(free, dim=-1), unit)


def test_a_vector_does_not_depend_on_the_batch(bert: Path):
    pooling(bert, mean_tokens=True)
    together = embedder(bert).embed(SENTENCES)
    alone = embedder(bert, max_tokens_per_step=160)
    assert [alone.embed([tokens])[0] for tokens in SENTENCES] == together
    assert alone.embed(SENTENCES) == together
    assert alone.embed([]) == []


def test_bad_input_is_refused(bert: Path):
    runner = embedder(bert)
    with pytest.raises(PromptTooLong, match="201"):
        runner.embed([[1] * 201])
    with pytest.raises(InvalidSampling, match="at least one"):
        runner.embed([[1], []])
    with pytest.raises(InvalidSampling, match="below 100"):
        runner.embed([[100]])


def test_other_pooling_and_other_modules_are_refused(bert: Path):
    modules(bert, "Transformer", "Pooling", "Dense")
    with pytest.raises(UnsupportedModel, match="Dense"):
        load(bert)
    modules(bert, "Transformer", "Pooling")
    pooling(bert, max_tokens=True)
    with pytest.raises(UnsupportedModel, match="pooling_mode_max_tokens"):
        load(bert)
