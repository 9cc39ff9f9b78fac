"""Architectures that only transformers knows: same text, and the contract of every runner."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_models import save_random
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MiniMaxConfig,
    MiniMaxForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from ridgeline_backends.base import Chunk, LoadSpec, SampleRequest, Step
from ridgeline_backends.conformance import CHECKS, Answer, Request, Subject, generate
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.engine import LLMEngine, SamplingParams
from ridgeline_backends.generic.runner import GenericRunner
from ridgeline_backends.models.reader import read_json

VOCABULARY = 151
WIDE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "max_position_embeddings": 256, "eos_token_id": 2}
MODELS: dict[str, tuple[type[PreTrainedModel], PreTrainedConfig]] = {
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, eos_token_id=2
        ),
    ),
    "gpt-neox": (GPTNeoXForCausalLM, GPTNeoXConfig(intermediate_size=64, **WIDE, **HEADS)),
    "opt": (OPTForCausalLM, OPTConfig(ffn_dim=64, word_embed_proj_dim=32, **WIDE, **HEADS)),
    "bloom": (
        BloomForCausalLM,
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    ),
    "mamba": (MambaForCausalLM, MambaConfig(state_size=8, eos_token_id=2, **WIDE)),
    # Written by transformers with an infinity in the config; counts no positions by its memory.
    "bamba": (
        BambaForCausalLM,
        BambaConfig(
            attn_layer_indices=[1],
            num_key_value_heads=2,
            intermediate_size=64,
            mamba_n_heads=4,
            mamba_d_state=8,
            mamba_d_head=16,
            **WIDE,
            **HEADS,
        ),
    ),
    # Its memory begins with a layer that counts no positions.
    "minimax": (
        MiniMaxForCausalLM,
        MiniMaxConfig(
            layer_types=["linear_attention", "full_attention"],
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=64,
            num_local_experts=4,
            **WIDE,
            **HEADS,
        ),
    ),
    # Positions begin behind that of the padding.
    "roberta": (
        RobertaForCausalLM,
        RobertaConfig(is_decoder=True, intermediate_size=64, pad_token_id=1, **WIDE, **HEADS),
    ),
    # These are computed whole for each token.
    "gpt": (
        OpenAIGPTLMHeadModel,
        OpenAIGPTConfig(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, eos_token_id=2
        ),
    ),
    "recurrent gemma": (
        RecurrentGemmaForCausalLM,
        RecurrentGemmaConfig(
            intermediate_size=64,
            lru_width=32,
            attention_window_size=32,
            **WIDE | {"num_hidden_layers": 3},
            **HEADS,
        ),
    ),
    # An architecture of ours, with a setting that is not.
    "llama with another bias": (
        LlamaForCausalLM,
        LlamaConfig(mlp_bias=True, intermediate_size=64, **WIDE, **HEADS),
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("generic")
    return folder, save_random(*MODELS[request.param], folder)


def load(folder: Path, **spec: object) -> GenericRunner:
    backend = CpuBackend()
    plan = backend.plan(
        read_json(folder / "config.json"),
        LoadSpec(dtype="fp32", max_model_len=256, **spec),  # type: ignore[arg-type]
    )
    assert plan.generic
    assert "slower" in plan.notes[0]
    runner = backend.load(backend.compile(folder, plan))
    assert isinstance(runner, GenericRunner)
    return runner


def test_greedy_text_is_that_of_transformers(case: tuple[Path, PreTrainedModel]):
    folder, model = case
    draw = random.Random(0)
    prompts = [tuple(draw.randrange(3, VOCABULARY) for _ in range(n)) for n in (1, 9, 60)]
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    requests = [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]
    runner = load(folder, max_num_seqs=2)
    assert runner.vocab_size == VOCABULARY
    assert 2 in runner.eos_token_ids
    answers = generate(LLMEngine(runner), requests)
    for request in requests:
        text = tuple(answers[request.id].tokens)
        assert len(text) == 40
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([request.prompt + text])).logits[0]
        assert tuple(logits.argmax(-1)[len(request.prompt) - 1 : -1].tolist()) == text


@pytest.fixture(scope="module", params=["gpt2", "mamba", "gpt"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("conforming")
    save_random(*MODELS[request.param], folder)
    return Subject(CpuBackend(), folder, "fp32", new_tokens=10)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_output_depends_on_the_sequence_alone(check: Callable[[Subject], None], subject: Subject):
    check(subject)


def test_an_urgent_neighbour_changes_nothing(tmp_path: Path):
    save_random(*MODELS["gpt2"], tmp_path)
    params = SamplingParams(max_tokens=40, temperature=0, logprobs=5, ignore_eos=True)
    patient = Request("patient", tuple(range(3, 90)), params)
    alone = generate(LLMEngine(load(tmp_path, max_num_seqs=1)), [patient])["patient"]

    engine = LLMEngine(load(tmp_path, max_num_seqs=1))
    answers = {name: Answer() for name in ("patient", "urgent")}
    engine.submit("patient", patient.prompt, params, answers["patient"].take, priority=9)
    for _ in range(20):
        engine.step()
    engine.submit("urgent", (5, 6), params, answers["urgent"].take, priority=-1)
    while engine.step():
        pass
    assert answers["patient"] == alone
    assert len(answers["urgent"].tokens) == 40


def test_a_sequence_is_not_continued_in_a_slot_that_holds_another(tmp_path: Path):
    save_random(*MODELS["gpt2"], tmp_path)
    runner = load(tmp_path, max_num_seqs=1)
    ask = SampleRequest(seed=0, index=0, temperature=0)
    first = Chunk(sequence_id="a", tokens=(5, 6), start=0, blocks=(0,), sample=ask)
    runner.execute(Step((first,)))
    other = Chunk(sequence_id="b", tokens=(7,), start=3, blocks=(0,), sample=ask)
    with pytest.raises(RuntimeError, match="slot 0"):
        runner.execute(Step((other,)))
