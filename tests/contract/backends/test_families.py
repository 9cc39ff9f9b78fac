"""Every decoder family against transformers: logits in float32, and the greedy text.

Small random models, but longer texts than their windows. Greedy text is compared by teacher
forcing, as in `test_real_models`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_models import save_random
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
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
from ridgeline_backends.conformance import CHECKS, Request, Subject, generate
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.runner import CpuRunner
from ridgeline_backends.engine import LLMEngine, SamplingParams
from ridgeline_backends.models.reader import read_json

VOCABULARY = 151
CONTEXT = 256
TOLERANCE = 2e-4
"""On logits of some tens; twice what float32 leaves open here."""

Case = tuple[type[PreTrainedModel], PreTrainedConfig]


def settings(**changes: object) -> dict[str, object]:
    return {
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
        **changes,
    }


def llama(**changes: object) -> Case:
    return LlamaForCausalLM, LlamaConfig(**settings(**changes))


def scaled(rope_type: str, **values: object) -> Case:
    return llama(rope_parameters={"rope_type": rope_type, "rope_theta": 10000.0, **values})


def gemma_2(**changes: object) -> Case:
    own = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 20}
    return Gemma2ForCausalLM, Gemma2Config(**settings(num_hidden_layers=4, **own | changes))


def gemma_3_settings(**changes: object) -> dict[str, object]:
    own = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 20}
    return settings(num_hidden_layers=4, sliding_window_pattern=3, **own | changes)


def gemma_3_with_images() -> Case:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=gemma_3_settings(), vision_config=vision, mm_tokens_per_image=4
    )
    return Gemma3ForConditionalGeneration, config


def phi_3(**changes: object) -> Case:
    return Phi3ForCausalLM, Phi3Config(**settings(num_attention_heads=4, **changes))


def longrope(dim: int, original: int, **changes: object) -> Case:
    scaling = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.02 * i for i in range(dim // 2)],
        "long_factor": [1.0 + 0.7 * i for i in range(dim // 2)],
    } | changes
    return phi_3(rope_parameters=scaling, original_max_position_embeddings=original)


YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
LLAMA_3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES: dict[str, Callable[[], Case]] = {
    "llama": llama,
    "llama, one query head per KV head, tied": lambda: llama(
        num_key_value_heads=6, tie_word_embeddings=True
    ),
    "llama, one KV head, biases": lambda: llama(
        num_key_value_heads=1, head_dim=24, attention_bias=True
    ),
    "rope linear": lambda: scaled("linear", factor=2.5),
    "rope dynamic": lambda: scaled("dynamic", factor=2.0),
    "rope llama3": lambda: scaled("llama3", **LLAMA_3),
    "rope yarn": lambda: scaled("yarn", **YARN),
    "rope yarn, other bounds": lambda: scaled(
        "yarn", beta_fast=20.0, beta_slow=2.0, truncate=False, attention_factor=1.3, **YARN
    ),
    "rope yarn, scales": lambda: scaled("yarn", mscale=1.2, mscale_all_dim=0.7, **YARN),
    "mistral, window": lambda: (MistralForCausalLM, MistralConfig(**settings(sliding_window=20))),
    "mistral, no window": lambda: (
        MistralForCausalLM,
        MistralConfig(**settings(sliding_window=None, head_dim=16)),
    ),
    "qwen2": lambda: (Qwen2ForCausalLM, Qwen2Config(**settings(tie_word_embeddings=True))),
    "qwen2, windows in later layers": lambda: (
        Qwen2ForCausalLM,
        Qwen2Config(**settings(use_sliding_window=True, sliding_window=20, max_window_layers=1)),
    ),
    "qwen3": lambda: (Qwen3ForCausalLM, Qwen3Config(**settings(head_dim=16))),
    "gemma": lambda: (GemmaForCausalLM, GemmaConfig(**settings(head_dim=16))),
    "gemma2": gemma_2,
    "gemma2, no softcaps": lambda: gemma_2(
        attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3": lambda: (Gemma3ForCausalLM, Gemma3TextConfig(**gemma_3_settings())),
    "gemma3, scaled": lambda: (
        Gemma3ForCausalLM,
        Gemma3TextConfig(
            **gemma_3_settings(
                rope_parameters={
                    "full_attention": {
                        "rope_type": "linear",
                        "factor": 8.0,
                        "rope_theta": 1000000.0,
                    },
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                }
            )
        ),
    ),
    "gemma3 with images": gemma_3_with_images,
    "phi3": phi_3,
    "phi3, window": lambda: phi_3(sliding_window=20),
    "phi3, long factors": lambda: longrope(12, 20),
    "phi3, short factors": lambda: longrope(12, CONTEXT),
    "phi4, part of a head turned": lambda: longrope(6, 20, partial_rotary_factor=0.5),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    kind, config = CASES[request.param]()
    config._attn_implementation = "eager"  # the only one that softcaps
    folder = tmp_path_factory.mktemp("family")
    return folder, save_random(kind, config, folder)


def load(model_dir: Path) -> CpuRunner:
    backend = CpuBackend()
    spec = LoadSpec(dtype="fp32", max_model_len=CONTEXT, max_num_seqs=4)
    plan = backend.plan(read_json(model_dir / "config.json"), spec)
    runner = backend.load(backend.compile(model_dir, plan))
    assert isinstance(runner, CpuRunner)
    return runner


def draw(length: int, seed: int) -> tuple[int, ...]:
    chance = random.Random(seed)
    return tuple(chance.randrange(3, VOCABULARY) for _ in range(length))


def theirs(model: PreTrainedModel, tokens: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens])).logits[0].float()


def test_logits_and_greedy_text_are_those_of_transformers(case: tuple[Path, PreTrainedModel]):
    folder, model = case
    runner = load(folder)
    tokens = draw(200, seed=1)
    blocks = tuple(range(CONTEXT // 16))
    with torch.inference_mode():
        chunk = Chunk(sequence_id="s", tokens=tokens, start=0, blocks=blocks)
        ours = runner.logits(Step((chunk,)))
    expected = theirs(model, tokens)
    assert expected.std() > 0.5, "logits that tell nothing apart prove nothing"
    assert (ours - expected).abs().max() < TOLERANCE

    prompts = [draw(length, seed=length) for length in (25, 40, 130)]
    params = SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)
    requests = [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]
    answers = generate(LLMEngine(runner), requests)
    for request in requests:
        text = tuple(answers[request.id].tokens)
        logits = theirs(model, request.prompt + text)[len(request.prompt) - 1 : -1]
        assert tuple(logits.argmax(-1).tolist()) == text


CONFORMING = ("gemma2", "gemma3", "qwen2, windows in later layers", "phi4, part of a head turned")


@pytest.fixture(scope="module", params=CONFORMING)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    kind, config = CASES[request.param]()
    folder = tmp_path_factory.mktemp("conforming")
    save_random(kind, config, folder)
    # Each family in one precision: `test_llama` has both.
    dtype = "bf16" if CONFORMING.index(request.param) % 2 else "fp32"
    return Subject(CpuBackend(), folder, dtype, new_tokens=10)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_output_depends_on_the_sequence_alone(check: Callable[[Subject], None], subject: Subject):
    check(subject)
