"""From a model directory to answers, for each kind of model: none of a script, all of real weights.

The models are tiny and random; what is tested is that every kind is loaded as what it is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from random_models import save_random
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.neuron.backend import NeuronArtifact
from ridgeline_backends.registry import get_backend
from ridgeline_service.serving.llm.answers import Answer
from ridgeline_service.serving.llm.compiling import compiled
from ridgeline_service.serving.llm.generation import Mailbox
from ridgeline_service.serving.llm.loading import load_model
from ridgeline_service.serving.llm.model import (
    EmbeddingModel,
    Model,
    RerankModel,
    Seams,
    TextModel,
    queue_of,
)
from ridgeline_service.serving.llm.openai.completions import completions
from ridgeline_service.serving.llm.openai.embeddings import embeddings
from ridgeline_service.serving.llm.openai.rerank import rerank
from ridgeline_service.serving.llm.replica import Replica
from ridgeline_service.serving.llm.settings import ModelSettings
from ridgeline_service.serving.llm.watch import NOBODY, RequestWatch, watched

WORDS = ["[CLS]", "[SEP]", "the", "sea", "is", "deep", "and", "wide", "[UNK]"]
BERT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

Use = Callable[[Model], Coroutine[Any, Any, Answer]]


def directory(folder: Path, kind: type[PreTrainedModel], config: PreTrainedConfig) -> Path:
    """A model directory with a tokenizer of a few words."""
    save_random(kind, config, folder)
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def answer(folder: Path, kind: type[Model], use: Use, **settings: Any) -> Any:
    """Load the model, check that it is of this kind, and use it."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        replica, mailbox = Replica("replica-1", loop.time), Mailbox(loop)
        numbers = itertools.count()
        seams = Seams(lambda: f"id-{next(numbers)}", lambda: 0.0)
        chosen = ModelSettings(dtype="fp32", max_num_seqs=2, **settings)
        model = await asyncio.to_thread(load_model, folder, chosen, replica, mailbox, seams)
        try:
            assert isinstance(model, kind)
            with watched(RequestWatch(NOBODY, loop.time)):
                made = await use(model)
            return json.loads(made.body)
        finally:
            if isinstance(model, TextModel):
                model.engine.stop()
            else:
                queue_of(model).close()

    return asyncio.run(run())


def ranked(model: Model) -> Coroutine[Any, Any, Answer]:
    return rerank(model, {"query": "the sea", "documents": ["deep and wide", "the sea is deep"]})


def test_a_cross_encoder_ranks(tmp_path: Path):
    directory(tmp_path, BertForSequenceClassification, BertConfig(num_labels=1, **BERT))
    said = answer(tmp_path, RerankModel, ranked)
    assert said["scored_by"] == "cross-encoder"
    assert {one["index"] for one in said["results"]} == {0, 1}
    assert all(0 < one["relevance_score"] < 1 for one in said["results"])
    # [CLS] the sea [SEP], then each document and [SEP].
    assert said["usage"]["prompt_tokens"] == 4 + 4 + 4 + 5


def test_an_embedding_model_ranks_by_its_vectors(tmp_path: Path):
    directory(tmp_path, BertModel, BertConfig(**BERT))
    said = answer(tmp_path, EmbeddingModel, ranked)
    assert said["scored_by"] == "cosine similarity of embeddings"
    assert all(-1 <= one["relevance_score"] <= 1 for one in said["results"])


def test_on_a_simulated_device_texts_are_read_alike(tmp_path: Path):
    """The same numbers, and what they would have taken."""

    async def embedded(model: Model) -> Answer:
        assert isinstance(model, EmbeddingModel)
        return await embeddings(model, {"input": ["the sea is deep", "wide"]})

    directory(tmp_path / "vectors", BertModel, BertConfig(**BERT))
    judge = BertConfig(num_labels=1, **BERT)
    directory(tmp_path / "scores", BertForSequenceClassification, judge)
    device = {"backend": "neuron", "instance": "ml.inf2.xlarge", "tensor_parallel": 2}
    copies = {**device, "tensor_parallel": 1, "data_parallel": 2}
    here, there, twice = (
        answer(tmp_path / "vectors", EmbeddingModel, embedded, **one)
        for one in ({}, device, copies)
    )
    for own, *others in zip(here["data"], there["data"], twice["data"], strict=True):
        for other in others:
            assert other["embedding"] == pytest.approx(own["embedding"], abs=1e-5)
    assert twice["usage"]["ridgeline"]["neuron_cores"] == 1
    assert "ridgeline" not in here["usage"]
    told = there["usage"]["ridgeline"]
    assert (told["instance_type"], told["neuron_cores"]) == ("inf2.xlarge", 2)
    assert 0 < told["time_to_answer_s"]["low"] < told["time_to_answer_s"]["seconds"]
    assert told["usd_per_million_tokens"] > 0
    here, there = (answer(tmp_path / "scores", RerankModel, ranked, **one) for one in ({}, device))
    for own, other in zip(here["results"], there["results"], strict=True):
        assert other["relevance_score"] == pytest.approx(own["relevance_score"], abs=1e-5)
    assert there["usage"]["ridgeline"]["neuron_cores"] == 2


def test_no_bucket_is_longer_than_the_texts_that_are_taken(tmp_path: Path):
    """Authors trained on 256 tokens of a model of 512 positions; a longer text is refused."""
    config = BertConfig(**{**BERT, "max_position_embeddings": 512})
    folder = directory(tmp_path, BertModel, config)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    read = json.loads((folder / "config.json").read_text())

    def buckets(**settings: Any) -> list[int]:
        chosen = ModelSettings(instance="ml.inf2.xlarge", max_num_seqs=1, **settings)
        made = compiled(get_backend("neuron"), folder, read, chosen)
        assert isinstance(made, NeuronArtifact)
        return [one.bucket for one in made.modules]

    assert buckets() == [128, 256]
    assert buckets(max_model_len=512) == [128, 256, 512]

    async def limit(model: Model) -> Answer:
        assert model.limits.max_input_tokens == 256
        return await ranked(model)

    answer(folder, EmbeddingModel, limit, backend="neuron", instance="ml.inf2.xlarge")


LLAMA = LlamaConfig(num_key_value_heads=1, bos_token_id=0, eos_token_id=1, **BERT)


def test_copies_on_a_simulated_device_write_alike(tmp_path: Path) -> None:
    expected = [1, 2]

    async def written(model: Model) -> Answer:
        assert isinstance(model, TextModel)
        body = {"prompt": "the sea is", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
        made = await asyncio.gather(*(completions(model, body) for _ in range(4)))
        stats = model.engine.stats()
        copies = stats.total_blocks // 2
        assert stats.finished == 4 + copies  # each was warmed up
        assert copies == expected.pop(0)
        answers = [one for one in made if isinstance(one, Answer)]
        texts = {json.loads(one.body)["choices"][0]["text"] for one in answers}
        assert len(answers) == 4
        assert len(texts) == 1
        return answers[-1]

    directory(tmp_path, LlamaForCausalLM, LLAMA)
    device = {"backend": "neuron", "instance": "ml.inf2.xlarge", "tensor_parallel": 1}
    one, two = (answer(tmp_path, TextModel, written, data_parallel=n, **device) for n in (1, 2))
    assert one["choices"][0]["text"] == two["choices"][0]["text"]
    assert two["usage"]["ridgeline"]["neuron_cores"] == 1
    with pytest.raises(DoesNotFit, match="3 copies of 1 core are more than the 2 cores") as caught:
        answer(tmp_path, TextModel, written, data_parallel=3, **device)
    assert "data_parallel_size is set by OPTION_DATA_PARALLEL_SIZE" in caught.value.hint
    assert "max_num_seqs" not in caught.value.hint


GPT2 = GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=64)
GEMMA = Gemma3Config(
    text_config={**BERT, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8},
    vision_config=VISION,
    mm_tokens_per_image=4,
)


@pytest.mark.parametrize(
    ("kind", "config", "context"),
    [(GPT2LMHeadModel, GPT2, 64), (Gemma3ForConditionalGeneration, GEMMA, 32)],
    ids=["on the generic path", "with the context length in a section of its own"],
)
def test_other_architectures_write(
    kind: type[PreTrainedModel], config: PreTrainedConfig, context: int, tmp_path: Path
):
    directory(tmp_path, kind, config)

    async def written(model: Model) -> Answer:
        assert isinstance(model, TextModel)
        assert model.limits.max_model_len == context
        body = {"prompt": "the sea is", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
        made = await completions(model, body)
        assert isinstance(made, Answer)
        return made

    said = answer(tmp_path, TextModel, written)
    assert said["usage"]["completion_tokens"] == 5
