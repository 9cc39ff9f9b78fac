"""SmolLM2 and MiniLM, from their real weights, against transformers and against themselves.

Greedy text is compared by teacher forcing: transformers reads our text in one pass, and its best
token at every position must be our next one. By induction that is the text it would have written.
`RIDGELINE_SLOW_TESTS=1` runs all fifty prompts instead of eight, and longer answers where the
model is compared with itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from ridgeline_backends.base import Chunk, LoadSpec, SampleRequest, Step
from ridgeline_backends.conformance import CHECKS, Request, Subject, generate
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.runner import CpuRunner
from ridgeline_backends.encoding import EmbeddingRunner
from ridgeline_backends.engine import LLMEngine, SamplingParams
from ridgeline_backends.models.reader import read_json

pytestmark = pytest.mark.weights

NEW_TOKENS = 256
BF16_TOLERANCE = 1.0
"""On logits that span some 40 units, of which the reference itself rounds to steps of 0.125."""

PROMPTS = [
    f"{ask} {subject}."
    for ask in (
        "Write a short story about",
        "Explain to a child",
        "List ten facts about",
        "Write a Python function that has to do with",
        "Give me a recipe, a poem and a joke about",
    )
    for subject in (
        "the sea",
        "a lighthouse keeper",
        "prime numbers",
        "the number 1729",
        "bread",
        "trains in winter",
        "Paris",
        "photosynthesis",
        "sorting",
        "the moon",
    )
]
SLOW = "RIDGELINE_SLOW_TESTS" in os.environ
FEW = PROMPTS[::6][:8]
CHOSEN = PROMPTS if SLOW else FEW

Prepared = Callable[[str], Path]


@pytest.fixture(scope="module")
def smollm2(prepared: Prepared) -> Path:
    return prepared("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def runners(smollm2: Path) -> dict[str, CpuRunner]:
    """By dtype. Shared, for every engine starts with an empty memory."""
    return {"bf16": load(smollm2, "bf16"), "fp32": load(smollm2, "fp32")}


def load(model_dir: Path, dtype: Literal["bf16", "fp32"]) -> CpuRunner:
    backend = CpuBackend()
    spec = LoadSpec(dtype=dtype, max_model_len=512, max_num_seqs=32, threads=2)
    plan = backend.plan(read_json(model_dir / "config.json"), spec)
    runner = backend.load(backend.compile(model_dir, plan))
    assert isinstance(runner, CpuRunner)
    return runner


def encode(model_dir: Path, prompts: list[str]) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    return [
        tokenizer(f"<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n").input_ids
        for p in prompts
    ]


def greedy(runner: CpuRunner, prompts: list[list[int]], count: int) -> list[list[int]]:
    params = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)
    requests = [Request(str(i), tuple(prompt), params) for i, prompt in enumerate(prompts)]
    answers = generate(LLMEngine(runner), requests)
    return [answers[request.id].tokens for request in requests]


def test_it_knows_the_capital_of_france(smollm2: Path, runners: dict[str, CpuRunner]):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    prompt = encode(smollm2, ["What is the capital of France?"])
    for runner in runners.values():
        text = greedy(runner, prompt, 12)
        assert "Paris" in tokenizer.decode(text[0])


def test_greedy_text_is_that_of_transformers_in_fp32(smollm2: Path, runners: dict[str, CpuRunner]):
    prompts = encode(smollm2, CHOSEN)
    texts = greedy(runners["fp32"], prompts, NEW_TOKENS)
    reference = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    for name, prompt, text in zip(CHOSEN, prompts, texts, strict=True):
        assert len(text) == NEW_TOKENS
        with torch.inference_mode():
            logits = reference(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == text, name


def test_bf16_stays_within_the_tolerance_of_transformers(
    smollm2: Path, runners: dict[str, CpuRunner]
):
    names = FEW[:3]
    prompts = encode(smollm2, names)
    reference = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    runner = runners["bf16"]
    texts = greedy(runner, prompts, 96 if SLOW else 48)
    for prompt, text in zip(prompts, texts, strict=True):
        with torch.inference_mode():
            theirs = reference(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
            theirs = theirs.float()
            sample = SampleRequest(seed=0, index=0, temperature=0)
            tokens, blocks = tuple(prompt + text), tuple(range(32))
            chunk = Chunk(sequence_id="s", tokens=tokens, start=0, blocks=blocks, sample=sample)
            ours = runner.logits(Step((chunk,)))[len(prompt) - 1 : -1]
        assert ours.argmax(-1).tolist() == text
        assert (ours - theirs).abs().max() < BF16_TOLERANCE
        differing = (theirs.argmax(-1) != torch.tensor(text)).nonzero()
        if len(differing):
            best = theirs[int(differing[0])].topk(2).values
            assert best[0] - best[1] < BF16_TOLERANCE


@pytest.fixture(scope="module", params=["bf16", "fp32"])
def subject(request: pytest.FixtureRequest, smollm2: Path) -> Subject:
    return Subject(CpuBackend(), smollm2, request.param, new_tokens=24 if SLOW else 8)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_output_depends_on_the_sequence_alone(check: Callable[[Subject], None], subject: Subject):
    check(subject)


def test_minilm_is_within_1e_4_of_transformers(prepared: Prepared):
    model_dir = prepared("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    texts = [*PROMPTS[:20], "", "word " * 400]
    tokens = [tokenizer(text, truncation=True, max_length=256).input_ids for text in texts]
    backend = CpuBackend()
    plan = backend.plan(read_json(model_dir / "config.json"), LoadSpec())
    runner = backend.load(backend.compile(model_dir, plan))
    assert isinstance(runner, EmbeddingRunner)
    vectors = runner.embed(tokens)
    reference = AutoModel.from_pretrained(model_dir, dtype=torch.float32)
    for ids, vector in zip(tokens, vectors, strict=True):
        with torch.inference_mode():
            hidden = reference(torch.tensor([ids])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=-1)
        assert (torch.tensor(vector) - expected).abs().max() < 1e-4
