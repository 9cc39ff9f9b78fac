"""Mixture of experts: products with the matrices that a router has chosen for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ridgeline_backends.neuron.operations.checks import require, take
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind

EXPERT_BLOCK_ROWS = 512
"""Rows of one expert that a prompt is cut into: `block_size` of NxD Inference."""


@dataclass(frozen=True, slots=True)
class ExpertMatmul(OperationKind):
    """x [tokens, in] or, each choice apart, [tokens, choices, in] by the matrices [experts, out,
    in] that `ids` [tokens, choices] names -> [tokens, choices, out]. A third further input, `rank`
    [1], says that the matrices are those from rank * experts on; a choice elsewhere gives zeros.

    `experts_read`: how many matrices are read, at most all: of a compiled program, not of the
    tokens it happens to get. `rows`: how many products of a row are computed, for all choices in
    one place or for every expert and token, as the library does it; None: tokens * choices.
    `rewritten`: without a kernel tokens and results stay in SBUF where they fit; else the result is
    written anew for each block that is added to it.
    """

    name: ClassVar[str] = "expert_matmul"
    experts_read: int
    rows: int | None = None
    rewritten: bool = False

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, weights, ids, *_ = take(inputs, self.name, 3, 4)
        require(len(weights.shape) == 3, self.name, "has matrices [experts, out, in]", inputs)
        fitting = x.shape[-1] == weights.shape[2] and x.shape[:-1] in (ids.shape[:1], ids.shape)
        require(fitting, self.name, "multiplies [tokens, in] by [experts, out, in]", inputs)
        chosen = len(ids.shape) == 2 and ids.dtype is ElementType.INT32
        require(chosen, self.name, "chooses by int32 [tokens, choices]", inputs)
        within = 0 < self.experts_read <= weights.shape[0]
        require(within, self.name, f"reads {self.experts_read} experts", inputs)
        return (Form((*ids.shape, weights.shape[1]), x.dtype),)

    def flops(self, inputs: Sequence[Form]) -> int:
        _, weights, ids, *_ = inputs
        rows = ids.elements if self.rows is None else self.rows
        return 2 * rows * weights.shape[1] * weights.shape[2]

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        x, weights, *rest = inputs
        read = weights.bytes // weights.shape[0] * self.experts_read
        return (x.bytes, read, *(one.bytes for one in rest))


@dataclass(frozen=True, slots=True)
class Combine(OperationKind):
    """x [tokens, choices, n] weighed by [tokens, choices] and summed over the choices."""

    name: ClassVar[str] = "combine"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, weights = take(inputs, self.name, 2)
        require(x.shape[:2] == weights.shape, self.name, "weighs every choice", inputs)
        return (Form((x.shape[0], *x.shape[2:]), x.dtype),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 2 * inputs[0].elements
