"""torch's matrix products and attention, as operations. The Tensor engine has no whole numbers:
products of those are refused."""

from __future__ import annotations

from math import inf, prod

import torch

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.export.elementwise_operators import arithmetic
from ridgeline_backends.neuron.export.registry import Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer, BufferKind


@translates("aten.linear.default")
def _linear(w: Writer, x: Buffer, weight: Value, bias: Value = None) -> Buffer:
    left, matrix = w.tensor(x), w.tensor(weight)
    w.floating(left, matrix)
    vectors = () if bias is None else (w.tensor(bias),)
    if len(matrix.shape) == 1:
        return _biased(w, _matmul(w, left, matrix), vectors)
    if matrix.kind is BufferKind.WEIGHT:
        return w.add(ops.Matmul(biased=bias is not None), left, matrix, *vectors)
    turned = w.add(ops.Transpose((1, 0)), matrix)
    return _biased(w, _matmul(w, left, turned), vectors)


def _biased(w: Writer, out: Buffer, vectors: tuple[Buffer, ...]) -> Buffer:
    return w.add(ops.Binary("add"), out, *vectors) if vectors else out


@translates(
    "aten.matmul.default", "aten.bmm.default", "aten.mm.default", "aten.mv.default",
    "aten.dot.default",
)  # fmt: skip
def _matmul(w: Writer, left: Value, right: Value) -> Buffer:
    a, b = w.tensor(left), w.tensor(right)
    w.floating(a, b)
    row = a if len(a.shape) > 1 else w.reshape(a, 1, a.shape[0])
    column = b if len(b.shape) > 1 else w.reshape(b, b.shape[0], 1)
    found = w.add(ops.BatchMatmul(), row, column)
    shape = list(found.shape)
    if len(b.shape) == 1:
        del shape[-1]
    if len(a.shape) == 1:
        del shape[-1 if len(b.shape) == 1 else -2]
    return w.reshape(found, *shape)


@translates("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def _added_product(
    w: Writer, x: Value, left: Value, right: Value, *, beta: float = 1, alpha: float = 1
) -> Buffer:
    added, a, b = w.tensor(x), w.tensor(left), w.tensor(right)
    matrix = w.transposed_from(b)
    if matrix is not None and matrix.kind is BufferKind.WEIGHT and alpha == beta == 1:
        whole = added.kind is BufferKind.WEIGHT and added.shape == matrix.shape[:1]
        return (
            _linear(w, a, matrix, added) if whole else w.binary("add", _linear(w, a, matrix), added)
        )
    found = _matmul(w, a, b)
    if alpha != 1:
        found = arithmetic(w, "multiply", found, alpha, found.dtype)
    if beta == 0:
        return found
    own = added if beta == 1 else arithmetic(w, "multiply", added, beta, added.dtype)
    return w.binary("add", found, own)


@translates("aten.addbmm.default")
def _added_sum_of_products(
    w: Writer, x: Value, left: Value, right: Value, *, beta: float = 1, alpha: float = 1
) -> Buffer:
    a, b = w.tensor(left), w.tensor(right)
    batch, rows, inner = a.shape
    # A sum over the batch is one product of what lies beside each other.
    wide = w.reshape(w.add(ops.Transpose((1, 0, 2)), a), rows, batch * inner)
    return _added_product(
        w, x, wide, w.reshape(b, batch * inner, b.shape[2]), beta=beta, alpha=alpha
    )


@translates("aten._trilinear.default")
def _trilinear(
    w: Writer,
    first: Value,
    second: Value,
    third: Value,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    summed: list[int],
    unroll: int = 1,
) -> Buffer:
    """The product of three that are stretched along axes of their own, summed."""
    sides = []
    for value, axes in ((first, expand1), (second, expand2), (third, expand3)):
        found = w.tensor(value)
        shape = list(found.shape)
        for axis in sorted(axes):
            shape.insert(axis, 1)
        sides.append(w.reshape(found, *shape))
    whole = w.binary("multiply", w.binary("multiply", sides[0], sides[2]), sides[1])
    return w.add(ops.Reduce("sum", tuple(summed)), whole)


@translates("aten.scaled_dot_product_attention.default")
def _attention(
    w: Writer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attn_mask: Value = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Buffer:
    if dropout_p:
        raise w.refused(
            f"dropout_p={dropout_p}",
            hint="Pass dropout_p only while self.training: a program is for inference.",
        )
    lead = q.shape[:-2]
    sides = [_four_axes(w, one, lead) for one in (q, k, v)]
    order = ops.Transpose((0, 2, 1, 3))
    parts = [w.add(order, one) for one in sides]
    if attn_mask is not None:
        parts.append(_bias(w, attn_mask, sides[0], sides[1], lead))
    kind = ops.Attention(
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
        causal=is_causal,
        biased=attn_mask is not None,
        kernel="flash",
    )
    found = w.add(order, w.add(kind, *parts))
    return w.reshape(found, *lead, q.shape[-2], v.shape[-1])


def _four_axes(w: Writer, x: Buffer, lead: tuple[int, ...]) -> Buffer:
    """[batch, heads, length, dim], whatever axes lead."""
    batch = prod(lead[:-1])
    if len(x.shape) != len(lead) + 2:
        raise w.refused("queries and keys of other numbers of axes")
    if not lead:
        return w.reshape(x, 1, 1, *x.shape)
    if x.shape[: len(lead) - 1] != lead[:-1]:
        x = w.add(ops.Expand((*lead[:-1], *x.shape[len(lead) - 1 :])), x)
    return w.reshape(x, batch, *x.shape[-3:])


def _bias(w: Writer, mask: Value, q: Buffer, k: Buffer, lead: tuple[int, ...]) -> Buffer:
    """What is added to scores, with four axes."""
    found = w.tensor(mask)
    if not found.dtype.floating:
        zero, hidden = (w.tensor(torch.tensor([one])) for one in (0.0, -inf))
        found = w.add(ops.Binary("where"), found, zero, hidden)
    shape = (1,) * (len(lead) + 2 - len(found.shape)) + found.shape
    if len(lead) > 2 and any(size > 1 for size in shape[: len(lead) - 1]):
        stretched = (*lead[:-1], *shape[len(lead) - 1 :])
        found = w.add(ops.Expand(stretched), w.reshape(found, *shape))
        shape = (prod(lead[:-1]), *shape[len(lead) - 1 :])
    elif len(lead) > 2:
        shape = (1, *shape[len(lead) - 1 :])
    elif len(lead) < 2:
        shape = (1,) * (4 - len(shape)) + shape
    if shape[-1] != k.shape[2]:
        found = w.add(ops.Expand((*shape[:-1], k.shape[2])), w.reshape(found, *shape))
        shape = found.shape
    return w.add(ops.Reshape(shape), found)
