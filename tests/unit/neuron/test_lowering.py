"""Lowering keeps bytes and FLOPs, respects the hardware's limits, and is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_backends.neuron import schedule
from ridgeline_backends.neuron.devices import chip
from ridgeline_backends.neuron.instructions import Engine, Stream
from ridgeline_backends.neuron.lowering import RULES, lower
from ridgeline_backends.neuron.lowering.rules import row_bytes
from ridgeline_backends.neuron.operations import (
    KINDS,
    AllReduce,
    ExpertMatmul,
    Group,
    Matmul,
    Unary,
)
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Operation,
    Section,
)

INF2 = chip("inferentia2")
TRN2 = chip("trainium2")
BF16 = ElementType.BF16


def matmul(rows: int, inner: int, columns: int, dtype: ElementType = BF16) -> Operation:
    x = Buffer("x", Form((rows, inner), dtype))
    weight = Buffer("w", Form((columns, inner), dtype), BufferKind.WEIGHT)
    return Operation(Matmul(), (x, weight), (Buffer("y", Form((rows, columns), dtype)),))


def test_every_kind_of_operation_has_a_rule() -> None:
    assert {kind for kind in KINDS.values() if kind not in RULES} == set()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 700))
def test_a_product_keeps_its_flops_and_bytes(rows: int, inner: int, columns: int) -> None:
    operation = matmul(rows, inner, columns)
    lowered = lower(operation, INF2)
    assert lowered.flops == operation.flops
    assert lowered.bytes(Stream.WEIGHTS) == operation.read_bytes[1]
    # The array can do no more than 128 x 128 products a cycle.
    assert lowered.cycles(Engine.TENSOR) * 128 * 128 * 2 >= operation.flops


def test_a_large_product_runs_at_the_peak_of_the_array() -> None:
    lowered = lower(matmul(8192, 4096, 8192), INF2)
    seconds = lowered.cycles(Engine.TENSOR) / (INF2.tensor_ghz * 1e9)
    assert seconds == pytest.approx(5.99e-3, rel=0.01)


def test_fp32_takes_four_passes_and_fp8_half_of_one_where_there_is_a_mode_for_it() -> None:
    plain = lower(matmul(512, 512, 512), TRN2).cycles(Engine.TENSOR)
    assert lower(matmul(512, 512, 512, ElementType.FP32), TRN2).cycles(
        Engine.TENSOR
    ) == pytest.approx(4 * plain)
    eight = ElementType.FP8_E4M3
    assert lower(matmul(512, 512, 512, eight), TRN2).cycles(Engine.TENSOR) == pytest.approx(
        plain / 2
    )
    assert lower(matmul(512, 512, 512, eight), INF2).cycles(Engine.TENSOR) == pytest.approx(
        lower(matmul(512, 512, 512), INF2).cycles(Engine.TENSOR)
    )


def test_an_equal_operation_is_lowered_once() -> None:
    assert lower(matmul(64, 64, 64), INF2) is lower(matmul(64, 64, 64), INF2)
    assert lower(matmul(64, 64, 64), INF2) is not lower(matmul(64, 64, 64), TRN2)


def test_an_activation_stays_in_sbuf_unless_it_is_large() -> None:
    def spilled(elements: int, streamed: frozenset[str] = frozenset()) -> int:
        x, y = (Buffer(name, Form((elements,), BF16)) for name in "xy")
        return lower(Operation(Unary("silu"), (x,), (y,)), INF2, streamed).bytes(Stream.SPILL)

    assert spilled(1 << 20) == 0
    assert spilled(1 << 24) == 4 << 24
    assert spilled(1 << 24, frozenset("x")) == 2 << 24


def test_rows_pass_through_two_products_where_the_second_matrix_stays_in_sbuf() -> None:
    def spilled(columns: int) -> int:
        x, between, y = (
            Buffer(name, Form((1 << 14, width), BF16))
            for name, width in (("x", 512), ("between", 2048), ("y", columns))
        )
        first, second = (
            Buffer(name, Form(form, BF16), BufferKind.WEIGHT)
            for name, form in (("first", (2048, 512)), ("second", (columns, 2048)))
        )
        section = Section(
            "one",
            (
                Operation(Matmul(), (x, first), (between,)),
                Operation(Matmul(), (between, second), (y,)),
            ),
        )
        return sum(one.bytes(Stream.SPILL) for one in schedule.lowered(section, INF2))

    narrow, between, wide = (2 * width << 14 for width in (512, 2048, 8192))
    assert spilled(512) == narrow + narrow
    assert spilled(8192) == narrow + 2 * between + wide


def test_a_prime_number_of_blocks_makes_short_rows() -> None:
    assert row_bytes(4096, 4096, BF16) == 16 * 128 * 2
    assert row_bytes(4096, 43 * 128, BF16) == 128 * 2
    assert row_bytes(74 * 128, 3584, BF16) == 2 * 128 * 2
    # A padded matrix is laid out anew, whichever of its sizes is.
    assert row_bytes(6848, 4096, BF16) == 16 * 128 * 2
    assert row_bytes(71 * 128, 4544, BF16) == 16 * 128 * 2


def test_matrices_that_are_joined_are_laid_out_each_for_itself() -> None:
    def rows_of(joined: int) -> int:
        x = Buffer("x", Form((1, 4096), BF16))
        both = Buffer("both", Form((2 * 43 * 128, 4096), BF16), BufferKind.WEIGHT)
        y = Buffer("y", Form((1, 2 * 43 * 128), BF16))
        lowered = lower(Operation(Matmul(joined=joined), (x, both), (y,)), INF2)
        return next(one.row_bytes for one in lowered.transfers if one.stream is Stream.WEIGHTS)

    assert rows_of(joined=1) == 2 * 128 * 2
    assert rows_of(joined=2) == 128 * 2


def test_a_collective_becomes_an_exchange_unless_it_is_alone() -> None:
    x, y = (Buffer(name, Form((64,), BF16)) for name in "xy")
    assert lower(Operation(AllReduce(Group(1)), (x,), (y,)), INF2).exchange is None
    exchange = lower(Operation(AllReduce(Group(8)), (x,), (y,)), INF2).exchange
    assert exchange is not None
    assert (exchange.bytes, exchange.members) == (128, 8)


def experts(kind: ExpertMatmul, tokens: int) -> Operation:
    """The second product of eight experts, of which each token chooses two."""
    x = Buffer("x", Form((tokens, 2, 256), BF16))
    matrices = Buffer("w", Form((8, 1024, 256), BF16), BufferKind.WEIGHT)
    ids = Buffer("ids", Form((tokens, 2), ElementType.INT32))
    return Operation(kind, (x, matrices, ids), (Buffer("y", Form((tokens, 2, 1024), BF16)),))


def test_without_a_kernel_the_whole_result_is_rewritten_for_each_block() -> None:
    tokens = 8192
    kernel, none = (
        lower(experts(ExpertMatmul(8, rewritten=rewritten), tokens), INF2).bytes(Stream.SPILL)
        for rewritten in (False, True)
    )
    blocks = 32 + 7
    assert none - kernel == blocks * 2 * tokens * 1024 * 2


def test_without_a_kernel_a_result_that_fits_stays_in_sbuf() -> None:
    kind = ExpertMatmul(8, rewritten=True)
    assert lower(experts(kind, 1024), INF2).bytes(Stream.SPILL) == 0


def test_results_of_all_experts_go_to_memory_and_come_back_where_they_have_no_room() -> None:
    def spilled(tokens: int) -> int:
        kind = ExpertMatmul(8, rows=8 * tokens)
        return lower(experts(kind, tokens), INF2).bytes(Stream.SPILL)

    assert spilled(512) == 0
    assert spilled(1024) == 2 * 8 * 1024 * 1024 * 2
    assert spilled(8192) == 2 * 8 * 8192 * (1024 + 256) * 2


def test_hardware_makes_the_descriptors_of_a_block() -> None:
    def steps(chip_name: str) -> int:
        return lower(experts(ExpertMatmul(8), 1024), chip(chip_name)).depth

    assert steps("inferentia2") - steps("trainium2") == (4 + 7) * 3


def test_every_expert_adds_to_the_result_of_a_decode_step() -> None:
    chosen = lower(experts(ExpertMatmul(8), 32), INF2)
    every = lower(experts(ExpertMatmul(8, rows=8 * 32), 32), INF2)
    assert every.cycles(Engine.VECTOR) - chosen.cycles(Engine.VECTOR) >= 8 * 2 * 1024
    assert every.cycles(Engine.TENSOR) >= chosen.cycles(Engine.TENSOR)


def test_chosen_experts_are_fetched_token_by_token() -> None:
    def depth(tokens: int) -> int:
        return lower(experts(ExpertMatmul(8), tokens), INF2).depth

    assert depth(3) - depth(2) == depth(2) - depth(1) == 3
