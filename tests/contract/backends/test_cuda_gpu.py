"""The CUDA backend on a real GPU: the conformance suite, and the forms that only a GPU has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_models import save_random
from transformers import LlamaConfig, LlamaForCausalLM

from ridgeline_backends.base import Chunk, LoadSpec, Step
from ridgeline_backends.conformance import CHECKS, CONTEXT, Subject
from ridgeline_backends.cuda.backend import CudaBackend
from ridgeline_backends.cuda.devices import CudaDevices
from ridgeline_backends.cuda.graphs import Repeated
from ridgeline_backends.cuda.plan import FLASH_BLOCK
from ridgeline_backends.cuda.runner import CudaRunner
from ridgeline_backends.models.reader import read_json

REPORT = CudaBackend().probe()
pytestmark = pytest.mark.skipif(not REPORT.usable, reason=f"no GPU: {REPORT.reason}")

LENGTH = CONTEXT // 16 * FLASH_BLOCK


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=512,
        max_position_embeddings=LENGTH,
        eos_token_id=2,
    )
    save_random(LlamaForCausalLM, config, folder)
    return folder


@pytest.fixture(scope="module", params=["bf16", "fp32"])
def subject(request: pytest.FixtureRequest, folder: Path) -> Subject:
    block = FLASH_BLOCK if request.param == "bf16" else 16
    return Subject(CudaBackend(), folder, request.param, new_tokens=10, block_size=block)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_output_depends_on_the_sequence_alone(check: Callable[[Subject], None], subject: Subject):
    check(subject)


def test_recorded_steps_compute_what_issued_ones_do(folder: Path):
    backend = CudaBackend()
    spec = LoadSpec(max_model_len=512, max_num_seqs=4)
    plan = backend.plan(read_json(folder / "config.json"), spec)
    artifact = backend.compile(folder, plan)
    recorded = CudaRunner(artifact, CudaDevices())
    issued = CudaRunner(artifact, CudaDevices(), recorder=Repeated())
    for place in range(20):
        chunks = tuple(
            Chunk(sequence_id=str(n), tokens=(place + n,), start=place, blocks=(2 * n, 2 * n + 1))
            for n in range(3)
        )
        assert torch.equal(recorded.logits(Step(chunks)), issued.logits(Step(chunks)))
