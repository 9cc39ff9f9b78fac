"""A model whose numbers are none: it is not served, and what it computes is never an answer."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from random_models import save_random
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.errors import DoesNotFit
from ridgeline_service.serving.llm.compiling import compiled
from ridgeline_service.serving.llm.embedding import Embedder
from ridgeline_service.serving.llm.errors import GenerationFailed, LoadFailed
from ridgeline_service.serving.llm.generation import Mailbox
from ridgeline_service.serving.llm.loading import load_model
from ridgeline_service.serving.llm.model import Model, Seams
from ridgeline_service.serving.llm.replica import Replica
from ridgeline_service.serving.llm.settings import ModelSettings

WORDS = ("[CLS]", "[SEP]", "[UNK]", "Hello", "world", ",", ".")
SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}
LLAMA = LlamaConfig(**SMALL, num_key_value_heads=1, tie_word_embeddings=False)


def model_of(folder: Path, kind: Any, config: Any, tensor: str) -> Path:
    """A model directory with one number of this tensor damaged."""
    save_random(kind, config, folder)
    weights = load_file(folder / "model.safetensors")
    [name] = [name for name in weights if name.endswith(tensor)]
    weights[name].view(-1)[:] = math.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def load(folder: Path) -> Model:
    async def run() -> Model:
        loop = asyncio.get_running_loop()
        seams = Seams(lambda: "id", lambda: 0.0)
        replica, mailbox = Replica("replica-1", loop.time), Mailbox(loop)
        settings = ModelSettings(dtype="fp32", max_num_seqs=2)
        return await asyncio.to_thread(load_model, folder, settings, replica, mailbox, seams)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "config", "tensor", "what"),
    [
        (LlamaForCausalLM, LLAMA, "model.norm.weight", "logits are"),
        (BertModel, BertConfig(**SMALL), "embeddings.LayerNorm.weight", "vector is"),
        (
            BertForSequenceClassification,
            BertConfig(num_labels=1, **SMALL),
            "classifier.weight",
            "score is",
        ),
    ],
)
def test_a_damaged_model_is_not_served(
    kind: Any, config: Any, tensor: str, what: str, tmp_path: Path
) -> None:
    folder = model_of(tmp_path, kind, config, tensor)
    with pytest.raises(LoadFailed, match=f"first {what} not") as caught:
        load(folder)
    assert "damaged" in caught.value.hint
    assert "OPTION_DTYPE=fp32" in caught.value.hint


def test_a_config_nested_without_end_is_named(tmp_path: Path) -> None:
    folder = model_of(tmp_path, BertModel, BertConfig(**SMALL), "embeddings.LayerNorm.weight")
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(LoadFailed, match=r"config\.json is not valid JSON"):
        load(folder)


class Broken:
    dimensions = 2

    def embed(self, token_ids: Any) -> list[list[float]]:
        return [[1.0, math.nan if 7 in ids else 2.0] for ids in token_ids]


async def test_a_vector_that_is_no_number_is_an_error_of_its_request() -> None:
    embedder = Embedder([Broken()], max_waiting=4)
    try:
        assert await embedder.embed([[1], [2]]) == [[1.0, 2.0]] * 2
        with pytest.raises(GenerationFailed, match="not made of finite numbers"):
            await embedder.embed([[1], [7]])
    finally:
        embedder.queue.close()


@pytest.mark.parametrize(
    ("settings", "named"), [({"kv_cache_bytes": 100 * 2**40}, True), ({}, False)]
)
def test_too_much_kv_memory_is_named_with_the_variable_that_asks_for_it(
    settings: Any, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_random(LlamaForCausalLM, LLAMA, tmp_path)
    if not named:
        monkeypatch.setattr("ridgeline_backends.cpu.backend.machine_memory", lambda: 1000)
    settings = ModelSettings(dtype="fp32", max_num_seqs=2, **settings)
    with pytest.raises(DoesNotFit) as caught:
        compiled(CpuBackend(), tmp_path, LLAMA.to_dict(), settings)
    assert ("VLLM_CPU_KVCACHE_SPACE asks for 102400 GiB" in caught.value.hint) is named


@pytest.mark.parametrize(
    ("logprob", "written"), [(-math.inf, -9999.0), (math.nan, None), (-0.5, -0.5)]
)
def test_answers_are_json_whatever_the_numbers(served: Any, logprob: float, written: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    served.engine.script.logprob = logprob
    chat = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 1}
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/completions", {"prompt": "x", "logprobs": 1}),
        ("/invocations", {"inputs": "x", "parameters": {"details": True}}),
    ):
        reply = served.post(path, body)
        assert reply.status == 200
        found = json.loads(reply.body, parse_constant=refuse)
        if "messages" in body:
            assert found["choices"][0]["logprobs"]["content"][0]["logprob"] == written
