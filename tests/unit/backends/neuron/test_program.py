"""The operation list: what its kinds make of their inputs, in forms, FLOPs and bytes."""

from __future__ import annotations

import pytest

from ridgeline_backends.neuron.operations import (
    KINDS,
    AllGather,
    AllReduce,
    Attention,
    Binary,
    CachedAttention,
    Embedding,
    Group,
    KVWrite,
    Matmul,
    Reshape,
)
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    InvalidProgram,
    Operation,
    Program,
    Section,
)

BF16, FP32, INT32 = ElementType.BF16, ElementType.FP32, ElementType.INT32


def test_matmul_counts_every_product_once() -> None:
    forms = (Form((2, 3, 64), BF16), Form((128, 64), BF16))
    kind = Matmul(output=FP32)
    assert kind.infer(forms) == (Form((2, 3, 128), FP32),)
    assert kind.flops(forms) == 2 * 6 * 64 * 128
    assert kind.read_bytes(forms) == (2 * 3 * 64 * 2, 128 * 64 * 2)
    assert kind.written_bytes(forms) == 6 * 128 * 4


def test_matmul_refuses_what_does_not_go_together_with_the_shapes() -> None:
    with pytest.raises(InvalidProgram, match=r"matmul .* bf16\[2, 63\], bf16\[128, 64\]"):
        Matmul().infer((Form((2, 63), BF16), Form((128, 64), BF16)))


def test_an_embedding_reads_the_rows_that_are_asked_for() -> None:
    forms = (Form((1000, 16), BF16), Form((2, 5), INT32))
    assert Embedding().infer(forms) == (Form((2, 5, 16), BF16),)
    assert Embedding().read_bytes(forms) == (10 * 16 * 2, 10 * 4)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Attention(scale=1.0), 100),
        (Attention(scale=1.0, kernel="flash"), 55),
        (Attention(scale=1.0, kernel="flash", window=3), 6 + 7 * 3),
        (Attention(scale=1.0, kernel="flash", causal=False), 100),
    ],
)
def test_a_flash_kernel_skips_what_is_hidden(kind: Attention, expected: int) -> None:
    assert kind.pairs(10, 10) == expected
    visible = sum(
        1
        for query in range(10)
        for key in range(10)
        if not kind.causal or query - (kind.window or 10) < key <= query
    )
    assert kind.kernel == "plain" or visible == expected


def test_decode_reads_the_compiled_length_and_writes_one_entry() -> None:
    cache = Form((8, 2, 512, 64), BF16)
    q, positions, slots = Form((4, 1, 6, 64), BF16), Form((4, 1), INT32), Form((4,), INT32)
    attend = CachedAttention(scale=1.0, length=128)
    assert attend.infer((q, cache, cache, positions, slots)) == (q,)
    assert attend.read_bytes((q, cache, cache, positions, slots))[1] == 4 * 2 * 128 * 64 * 2
    new = Form((4, 1, 2, 64), BF16)
    assert KVWrite().infer((cache, new, positions, slots)) == (cache,)
    assert KVWrite().written_bytes((cache, new, positions, slots)) == new.bytes


def test_a_view_moves_nothing() -> None:
    form = Form((4, 6), BF16)
    assert Reshape((2, 12)).infer((form,)) == (Form((2, 12), BF16),)
    assert Reshape((2, 12)).read_bytes((form,)) == (0,)
    assert Reshape((2, 12)).written_bytes((form,)) == 0


def test_groups_cover_every_core_once() -> None:
    for group in (Group(4), Group(2, stride=4), Group(8)):
        members = {group.of(core) for core in range(8)}
        assert sorted(core for one in members for core in one) == list(range(8))
    assert Group(2, stride=4).of(5) == (1, 5)


def test_collectives_say_what_each_core_sends() -> None:
    forms = (Form((3, 64), BF16),)
    assert AllReduce(Group(4)).sent_bytes(forms) == 2 * 3 * 64 * 2 * 3 // 4
    assert AllGather(Group(4)).infer(forms) == (Form((3, 256), BF16),)
    assert AllGather(Group(4)).sent_bytes(forms) == 3 * 64 * 2 * 3


def test_a_repeated_section_counts_as_often_as_it_runs() -> None:
    x = Buffer("hidden", Form((1, 64), BF16))
    weight = Buffer("layers.{0}.w", Form((64, 64), BF16), BufferKind.WEIGHT)
    tokens = Buffer("x", Form((1, 64), BF16), BufferKind.INPUT)
    start = Section("start", (Operation(Binary("add"), (tokens, tokens), (x,)),))
    layers = Section("layers", (Operation(Matmul(), (x, weight), (x,)),), repeats=5)
    program = Program("token_generation", (start, layers))
    program.check()
    assert program.flops == 64 + 5 * 2 * 64 * 64
    assert program.bytes_of(BufferKind.WEIGHT) == 5 * 64 * 64 * 2
    assert layers.layers(3) == (3,)


def test_check_names_the_operation_that_reads_what_nothing_wrote() -> None:
    x, y = (Buffer(name, Form((1, 64), BF16)) for name in "xy")
    section = Section("layers", (Operation(Binary("add"), (x, x), (y,), "layers.{0}.mlp"),))
    with pytest.raises(InvalidProgram, match=r"layers.\{0\}.mlp reads 'x'"):
        Program("token_generation", (section,)).check()


def test_check_refuses_an_output_of_another_form() -> None:
    x = Buffer("x", Form((1, 64), BF16), BufferKind.INPUT)
    y = Buffer("y", Form((1, 32), BF16))
    section = Section("only", (Operation(Binary("add"), (x, x), (y,)),))
    with pytest.raises(InvalidProgram, match="binary in the program"):
        Program("encoding", (section,)).check()


def test_every_kind_has_a_name_of_its_own() -> None:
    assert all(kind.name == name for name, kind in KINDS.items())
    assert len(KINDS) == 44
