"""Too many instructions: what no compiler makes fewer of is refused, and nothing that compiled."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.errors import RidgelineError
from ridgeline_backends.base import LoadSpec
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.backend import NeuronBackend
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.listing import given as given_buffer
from ridgeline_backends.neuron.builders.listing import weight
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.builders.text_encoder import text_encoder_program
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder
from ridgeline_backends.neuron.calibration.rows import Row, read_rows
from ridgeline_backends.neuron.calibration.workloads import decode, encoder
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.compile import compile_encoder
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices import chip
from ridgeline_backends.neuron.encoder_planner import EncoderTarget, make_encoder_plan
from ridgeline_backends.neuron.instruction_count import (
    MOST,
    TooManyInstructions,
    instructions,
    too_many,
)
from ridgeline_backends.neuron.instructions import Engine
from ridgeline_backends.neuron.lowering import lower
from ridgeline_backends.neuron.operations import Matmul
from ridgeline_backends.neuron.placement import place
from ridgeline_backends.neuron.program import Buffer, ElementType, Form, Operation, Program

ROWS = Path(__file__).parents[2] / "data" / "neuron" / "rows.yaml"
V2 = chip("inferentia2")


def model(name: str) -> EncoderConfig:
    found = text_encoder(find(name, "encoders").config)
    assert found is not None
    return found.config


def encoding(name: str, batch: int, length: int, *, cores: int = 1) -> Program:
    neuron = NeuronConfig(tp_degree=cores, batch_size=batch, seq_len=length)
    return text_encoder_program(model(name), neuron, pooling=Pooling(), bucket=length, batch=batch)


def of_decoder(row: Row) -> Program:
    """The prompts of a row, as many as its library encodes at once."""
    found, batch = decode.decoder_of(row), decode.batch_of(row)
    length = decode.sequence_length(row)
    prompt = row.integer("input_len", decode.default_prompt(row, length))
    return decoder_program(
        found.model,
        found.config,
        phase=Phase.CONTEXT_ENCODING,
        bucket=decode.bucket_of(row, prompt, length),
        rules=found.rules,
        batch=decode.prompts_at_once(row, batch),
    )


def of_encoder(row: Row) -> Program:
    """Those that write, too, are compiled as prompts are."""
    config = row.config or find(row.model, "encoders").config
    found = encoder.encoder_program(
        config, row, row.integer("batch", 1), cores=row.integer("tp", 1)
    )
    writes = str(config.get("model_type")).startswith("qwen")
    return replace(found, phase=Phase.CONTEXT_ENCODING) if writes else found


@pytest.mark.parametrize(
    ("category", "built"), [("llm_decode", of_decoder), ("encoder", of_encoder)]
)
def test_no_published_row_that_compiled_is_refused(category: str, built: Any) -> None:
    """Those with the most tokens in a call."""

    def tokens(row: Row) -> float:
        sizes = [row.number(name, 128) for name in ("seq_len", "input_len")]
        return row.number("batch", 1) * max(sizes)

    rows = [row for row in read_rows(ROWS) if row.category == category and row.usable]
    checked = 0
    for row in sorted(rows, key=tokens, reverse=True)[:60]:
        try:
            program = built(row)
        except RidgelineError:
            continue
        assert too_many(program, V2, 1) is None, row.id
        checked += 1
    assert checked > 40


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 5000), st.integers(1, 5000))
def test_the_tensor_engine_has_no_larger_products(rows: int, inner: int, columns: int) -> None:
    x, matrix = (
        given_buffer("x", rows, inner, dtype=ElementType.BF16),
        weight("w", columns, inner, dtype=ElementType.BF16),
    )
    out = Buffer("y", Form((rows, columns), x.dtype))
    lowered = lower(Operation(Matmul(), (x, matrix), (out,)), V2)
    count = sum(one.count for one in lowered.instructions if one.engine is Engine.TENSOR)
    assert count * prod((128, 128, 512)) >= rows * inner * columns


def test_layers_of_prompts_are_compiled_once_and_those_of_encoders_unrolled() -> None:
    whole = encoding("bge-m3", 2, 8192)
    refusal = too_many(encoding("bge-m3", 8, 8192), V2, 1)
    assert refusal is not None
    assert "[NCC_EBVF030] encoding 8192, batch 8: at least 30,674,944" in refusal.message
    assert "of attention [8, 8192, 16, 64] in layers.{0}" in refusal.message
    assert "tp_degree" in refusal.hint
    assert too_many(whole, V2, 1) is None
    many = replace(encoding("bge-m3", 8, 8192), phase=Phase.CONTEXT_ENCODING)
    assert too_many(many, V2, 1) is None


def test_two_physical_cores_share_the_instructions_of_a_logical_one() -> None:
    program, v3 = encoding("bert-base", 4, 512), chip("trainium2")
    assert instructions(program, v3, 2) == instructions(program, v3, 1) // 2
    large = encoding("bge-m3", 4, 8192)
    one, two = too_many(large, v3, 1), too_many(large, v3, 2)
    assert one is not None
    assert two is None


def test_it_is_refused_wherever_something_is_compiled() -> None:
    placement = place("trn2.3xlarge", 1, None)
    neuron = NeuronConfig(batch_size=8, seq_len=8192)
    with pytest.raises(TooManyInstructions, match=f"{MOST:,} of all engines"):
        compile_encoder(model("bge-m3"), neuron, placement, None, pooling=Pooling())
    config = {
        **find("bge-m3", "encoders").config,
        "architectures": ["XLMRobertaModel"],
    }
    backend = NeuronBackend("trn2.3xlarge", {"tp_degree": 1})
    plan = backend.plan(config, LoadSpec(max_num_seqs=8))
    assert "NCC_EBVF030" in " ".join(plan.refusals)
    found = make_encoder_plan(model("bge-m3"), EncoderTarget(seq=8192))
    largest = max(one.setting.batch for one in found.options if one.setting.tp == 1)
    assert largest < 16
