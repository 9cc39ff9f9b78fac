"""Tensor parallelism with real processes that speak over gloo, the processor in the place of GPUs:
the greedy text is that of one process."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from host_devices import OLD, HostDevices
from hypothesis import given
from hypothesis import strategies as st
from random_models import save_random
from transformers import Qwen2Config, Qwen2ForCausalLM

from ridgeline_backends.base import Artifact, Chunk, LoadSpec, Step
from ridgeline_backends.conformance import Request, generate
from ridgeline_backends.cuda.backend import CudaBackend
from ridgeline_backends.cuda.group import decode, encode
from ridgeline_backends.cuda.processes import Order
from ridgeline_backends.cuda.runner import CudaRunner
from ridgeline_backends.engine import LLMEngine, SamplingParams
from ridgeline_backends.models.reader import read_json

BACKEND = CudaBackend(HostDevices((OLD, OLD)))
SETTINGS = {
    "vocab_size": 151,  # odd: the head's halves are not alike
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 72,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "own head"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with biases where the split must neither lose nor double them."""
    folder = tmp_path_factory.mktemp("parallel")
    save_random(
        Qwen2ForCausalLM, Qwen2Config(**SETTINGS, tie_word_embeddings=request.param), folder
    )
    return folder


def artifact(folder: Path, degree: int) -> Artifact:
    spec = LoadSpec(dtype="fp32", max_model_len=192, max_num_seqs=4, tensor_parallel=degree)
    return BACKEND.compile(folder, BACKEND.plan(read_json(folder / "config.json"), spec))


@pytest.fixture
def pair(folder: Path) -> Iterator[CudaRunner]:
    runner = BACKEND.load(artifact(folder, 2))
    assert isinstance(runner, CudaRunner)
    yield runner
    runner.close()


def test_two_processes_write_the_text_of_one(folder: Path, pair: CudaRunner):
    chance = random.Random(0)
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    requests = [
        Request(str(n), tuple(chance.randrange(3, 151) for _ in range(n)), params)
        for n in (1, 16, 70, 100, 33)
    ]
    one = BACKEND.load(artifact(folder, 1))
    assert isinstance(one, CudaRunner)
    expected = generate(LLMEngine(one), requests)
    answers = generate(LLMEngine(pair), requests)
    for request in requests:
        assert answers[request.id].tokens == expected[request.id].tokens

    blocks = tuple(range(12))
    step = Step((Chunk(sequence_id="s", tokens=requests[3].prompt, start=0, blocks=blocks),))
    assert torch.allclose(pair.logits(step), one.logits(step), atol=1e-4)


def test_a_process_that_is_gone_is_told_and_not_waited_for(pair: CudaRunner):
    assert pair._crew is not None
    [worker] = pair._crew._workers
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)
    step = Step((Chunk(sequence_id="s", tokens=(3,), start=0, blocks=(0,)),))
    with pytest.raises(RuntimeError, match="process 1 of the tensor-parallel model has ended"):
        pair.logits(step)


def test_an_order_survives_its_way(folder: Path):
    order = Order(artifact(folder, 2), 1, 2, 4321, "cuda:1", "nccl")
    assert Order.from_json(order.to_json()) == order


@given(
    st.lists(
        st.builds(
            Chunk,
            sequence_id=st.just(""),
            tokens=st.lists(st.integers(0, 2**40), min_size=1).map(tuple),
            start=st.integers(0, 2**40),
            blocks=st.lists(st.integers(0, 2**40)).map(tuple),
        )
    ),
    st.lists(st.integers(0, 999)),
)
def test_a_step_survives_its_way(chunks: list[Chunk], wanted: list[int]):
    assert decode(encode(chunks, wanted)) == (tuple(chunks), wanted)
