"""The Llama family against transformers, and against itself in every situation."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ridgeline_backends.base import LoadSpec, Plan
from ridgeline_backends.conformance import CHECKS, Request, Subject, generate
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.kernels.library import library
from ridgeline_backends.engine import LLMEngine, SamplingParams
from ridgeline_backends.models.reader import read_json

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, object]] = {
    "three query heads per KV head": {},
    "no sharing of KV heads, own head": {"num_key_value_heads": 6, "tie_word_embeddings": False},
    "one KV head, wide heads": {"num_key_value_heads": 1, "head_dim": 24},
    "llama3 rope": {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0},
    "linear rope": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": None,
    },
}


def engine_for(model_dir: Path, **spec: object) -> LLMEngine:
    backend = CpuBackend()
    plan = backend.plan(
        read_json(model_dir / "config.json"),
        LoadSpec(dtype="fp32", max_num_seqs=8, **spec),  # type: ignore[arg-type]
    )
    return LLMEngine(backend.load(backend.compile(model_dir, plan)))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_text_is_that_of_transformers(shape: str, make_llama):  # type: ignore[no-untyped-def]
    model_dir = make_llama(**SHAPES[shape])
    draw = random.Random(0)
    prompts = [[draw.randrange(3, 199) for _ in range(length)] for length in (1, 7, 40, 130)]
    params = SamplingParams(max_tokens=256, temperature=0, ignore_eos=True)
    requests = [Request(str(i), tuple(p), params) for i, p in enumerate(prompts)]
    answers = generate(engine_for(model_dir), requests)
    reference = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    for index, prompt in enumerate(prompts):
        text = answers[str(index)].tokens
        # Fed our text, it must choose our next token everywhere: then it would have written it.
        with torch.inference_mode():
            logits = reference(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == text
    with torch.inference_mode():
        written = reference.generate(
            torch.tensor([prompts[1]]),
            max_new_tokens=256,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert answers["1"].tokens == written[0, len(prompts[1]) :].tolist()


class Int8Backend(CpuBackend):
    """The CPU backend for somebody who always asks for 8 bits."""

    def plan(self, config: Mapping[str, object], spec: LoadSpec) -> Plan:
        return super().plan(config, replace(spec, quantize="int8"))


@pytest.fixture(scope="module", params=["bf16", "fp32", "int8"])
def subject(request: pytest.FixtureRequest, make_llama) -> Subject:  # type: ignore[no-untyped-def]
    if request.param != "int8":
        dtype = torch.bfloat16 if request.param == "bf16" else torch.float32
        return Subject(CpuBackend(), make_llama(dtype=dtype), request.param)
    if library() is None:
        pytest.skip("int8 needs the native kernels, and there are none here")
    return Subject(Int8Backend(), make_llama(dtype=torch.bfloat16), "bf16")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_output_depends_on_the_sequence_alone(check, subject: Subject):  # type: ignore[no-untyped-def]
    check(subject)
