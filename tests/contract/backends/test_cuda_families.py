"""The CUDA backend's runner against transformers, family by family, with the processor in the
place of a GPU: softcaps, windows, biases, norms of heads, partial rotation."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from host_devices import NEW, HostDevices
from random_models import save_random
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ridgeline_backends.base import Chunk, LoadSpec, Step
from ridgeline_backends.conformance import CHECKS, Subject, check_adapters
from ridgeline_backends.cuda.backend import CudaBackend
from ridgeline_backends.cuda.runner import CudaRunner
from ridgeline_backends.models.reader import read_json

VOCABULARY = 151
CONTEXT = 256
TOLERANCE = 2e-4

SETTINGS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 72,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = SETTINGS | {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 20}

Case = tuple[type[PreTrainedModel], Callable[[], PreTrainedConfig]]
CASES: dict[str, Case] = {
    "gemma2, softcaps": (Gemma2ForCausalLM, lambda: Gemma2Config(**GEMMA)),
    "gemma3": (
        Gemma3ForCausalLM,
        lambda: Gemma3TextConfig(**GEMMA | {"num_hidden_layers": 4, "sliding_window_pattern": 3}),
    ),
    "mistral, window": (
        MistralForCausalLM,
        lambda: MistralConfig(**SETTINGS | {"sliding_window": 20}),
    ),
    "qwen2, biases": (
        Qwen2ForCausalLM,
        lambda: Qwen2Config(**SETTINGS | {"tie_word_embeddings": True}),
    ),
    "qwen3, norms of heads": (Qwen3ForCausalLM, lambda: Qwen3Config(**SETTINGS | {"head_dim": 16})),
    "phi3": (Phi3ForCausalLM, lambda: Phi3Config(**SETTINGS | {"num_attention_heads": 4})),
}


def save(name: str, folder: Path) -> PreTrainedModel:
    kind, make = CASES[name]
    config = make()
    config._attn_implementation = "eager"  # the only one that softcaps
    return save_random(kind, config, folder)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path):
    model = save(name, tmp_path)
    backend = CudaBackend(HostDevices())
    spec = LoadSpec(dtype="fp32", max_model_len=CONTEXT, max_num_seqs=4)
    plan = backend.plan(read_json(tmp_path / "config.json"), spec)
    runner = backend.load(backend.compile(tmp_path, plan))
    assert isinstance(runner, CudaRunner)
    chance = random.Random(1)
    tokens = tuple(chance.randrange(3, VOCABULARY) for _ in range(200))
    blocks = tuple(chance.sample(range(CONTEXT // 16), CONTEXT // 16))
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([tokens])).logits[0].float()

    def chunk(begin: int, end: int) -> Step:
        return Step((Chunk(sequence_id="s", tokens=tokens[begin:end], start=begin, blocks=blocks),))

    # A prompt in two parts, then tokens one by one.
    found = [runner.logits(chunk(0, 120)), runner.logits(chunk(120, 190))]
    found += [runner.logits(chunk(place, place + 1)) for place in range(190, 200)]
    assert expected.std() > 0.5, "logits that tell nothing apart prove nothing"
    assert (torch.cat(found) - expected).abs().max() < TOLERANCE


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    # In bf16, which is planned for new GPUs; with softcaps, which keep attention plain.
    folder = tmp_path_factory.mktemp("conforming")
    save("gemma2, softcaps", folder)
    return Subject(CudaBackend(HostDevices((NEW,))), folder, "bf16", new_tokens=10)


# Adapters are multiplied in float32 whatever the type of the model: `test_cuda` has them.
@pytest.mark.parametrize(
    "check",
    [check for check in CHECKS if check is not check_adapters],
    ids=lambda check: check.__name__,
)
def test_output_depends_on_the_sequence_alone(check: Callable[[Subject], None], subject: Subject):
    check(subject)
