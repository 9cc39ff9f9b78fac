"""One core's part of a training step: a microbatch there and back, gradients, the optimizer.

Tensor, data and pipeline parallel (NxD Training). The list of the way back follows from that of the
way there: a product comes back as two, anything else as twice itself. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ridgeline_backends.neuron.builders.encoder import EncoderShape, layer_section, stream
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    AllGather,
    AllReduce,
    Binary,
    Collective,
    Embedding,
    Group,
    Matmul,
    Permute,
    ReduceScatter,
    Softmax,
    Unary,
)
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Operation,
    Program,
    Section,
)

_ADAM, _LAMB = 14, 50
"""Passes of an optimizer's step over its numbers, each an operation of its own: two moments of two
operations each, corrections, root, quotient, decay, update; LAMB reads weights and updates of every
tensor again for their norms and scales each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """`tensor` x `data` x `pipeline` cores. `zero`: gradients and optimizer states are cut over
    the data-parallel cores. `recompute`: activations are made again on the way back.
    `dropout`: a tenth of them is dropped at random. `scored`: positions of a sequence whose logits
    are wanted. `lamb`: that optimizer, else Adam."""

    shape: EncoderShape
    tensor: int
    data: int
    pipeline: int
    microbatch: int
    global_batch: int
    length: int
    scored: int
    zero: bool = False
    recompute: bool = False
    dropout: bool = False
    lamb: bool = False

    @property
    def microbatches(self) -> int:
        """Of one step, one after the other."""
        return max(1, self.global_batch // (self.data * self.microbatch))

    @property
    def parameters(self) -> int:
        """Of one core."""
        s = self.shape
        inner = (3 if s.gated else 2) * s.hidden * s.intermediate
        heads = s.width * s.hidden * (2 * s.heads + 2 * s.key_heads)
        layers = s.layers // self.pipeline * (inner + heads)
        return (layers + s.vocab * s.hidden) // self.tensor


def build_microbatch(plan: TrainingPlan) -> Program:
    """One microbatch there and back through one stage of the pipeline."""
    shape = replace(plan.shape, layers=max(1, plan.shape.layers // plan.pipeline))
    layers = _with_dropout(
        plan,
        layer_section(shape, batch=plan.microbatch, length=plan.length, cores=plan.tensor),
    )
    there = (_embedding(plan), layers, _head(plan) if plan.pipeline == 1 else _pass(plan))
    again = (replace(layers, name="layers.again"),) if plan.recompute else ()
    back = tuple(_back(section) for section in reversed(there))
    sections = (*there, *again, *back)
    return Program("training", sections, cores=plan.tensor, batch=plan.microbatch)


def build_update(plan: TrainingPlan) -> Program:
    """Gradients summed over the data-parallel cores, and the optimizer's step."""
    out = Listing("update", plan.data)
    group = Group(plan.data, plan.tensor)
    count = plan.parameters
    grads = Buffer("gradients", Form((count,), ElementType.FP32), BufferKind.WEIGHT)
    if plan.zero and plan.data > 1:
        count = -(-count // plan.data)
        whole = Buffer("gradients", Form((count * plan.data,), ElementType.BF16), BufferKind.WEIGHT)
        out.add(ReduceScatter(group, 0), whole, to="own")
    elif plan.data > 1:
        out.add(AllReduce(group), grads, to="summed")
    state = weight("state", count, dtype=ElementType.FP32)
    for index in range(_LAMB if plan.lamb else _ADAM):
        other = weight(f"state{index}", count, dtype=ElementType.FP32)
        out.into(Binary("add"), state, other, target=state)
    if plan.zero and plan.data > 1:
        part = weight("updated", count, dtype=ElementType.BF16)
        out.add(AllGather(group, 0), part, to="parameters")
    return Program("update", (out.section(),), cores=plan.data)


def _embedding(plan: TrainingPlan) -> Section:
    out = Listing("embedding", plan.tensor)
    shape = plan.shape
    table = weight("embedding", shape.vocab, shape.hidden // plan.tensor, dtype=shape.dtype)
    ids = given("tokens", plan.microbatch, plan.length)
    found = out.add(Embedding(), table, ids, to="words")
    out.all_gather(found, to="gathered")
    out.settle(stream(shape, plan.microbatch, plan.length))
    return out.section()


def _head(plan: TrainingPlan) -> Section:
    out = Listing("head", plan.tensor)
    shape = plan.shape
    form = Form((plan.microbatch, plan.scored, shape.hidden), shape.dtype)
    columns = -(-shape.vocab // plan.tensor)
    matrix = weight("head", columns, shape.hidden, dtype=shape.dtype)
    logits = out.linear(Buffer("hidden", form), matrix, to="logits")
    out.add(Softmax(), logits, to="shares")
    return out.section()


def _pass(plan: TrainingPlan) -> Section:
    """On to the next stage, which may lie on another instance."""
    out = Listing("pass", plan.tensor)
    hidden = stream(plan.shape, plan.microbatch, plan.length)
    kind = Permute(Group(plan.pipeline, plan.tensor * plan.data), 1)
    out.add(kind, hidden, to="passed")
    return out.section()


def _with_dropout(plan: TrainingPlan, layers: Section) -> Section:
    """Behind attention, in its scores, and behind the MLP: random bits, a comparison, a product."""
    if not plan.dropout:
        return layers
    out = Listing("dropout", 1)
    shape, batch, length = plan.shape, plan.microbatch, plan.length
    heads = -(-shape.heads // plan.tensor)
    hidden = stream(shape, batch, length)
    scores = Buffer("scores", Form((batch, heads, length, length), shape.dtype))
    for place, x in enumerate((hidden, scores, hidden)):
        bits = out.add(Unary("shift"), x, to=f"bits{place}")
        kept = out.add(Binary("less"), bits, x, to=f"kept{place}")
        out.add(Binary("multiply"), x, kept, to=f"dropped{place}")
    return replace(layers, operations=(*layers.operations, *out.section().operations))


def _back(section: Section) -> Section:
    operations = [
        gradient for operation in reversed(section.operations) for gradient in _gradients(operation)
    ]
    return replace(section, name=f"{section.name}.back", operations=tuple(operations))


def _gradients(operation: Operation) -> Sequence[Operation]:
    """What an operation needs on the way back."""
    kind = operation.attributes
    if isinstance(kind, Collective):
        return (operation,)
    if not isinstance(kind, Matmul):
        return (operation, operation) if kind.moves_data else ()
    x, matrix = operation.inputs[:2]
    (y,) = operation.outputs
    rows, columns, inner = prod(x.shape[:-1]), *matrix.shape
    turned = replace(matrix, form=replace(matrix.form, shape=(inner, columns)))
    dx = Operation(Matmul(), (y, turned), (x,), operation.layer)
    # Gradients of a matrix contract over the tokens, which are then read the other way round.
    left = Buffer("dy.turned", Form((columns, rows), y.dtype))
    right = Buffer("x.turned", Form((inner, rows), x.dtype))
    made = Buffer(f"{matrix.name}.gradient", Form((columns, inner), x.dtype), BufferKind.WEIGHT)
    return (dx, Operation(Matmul(), (left, right), (made,), operation.layer))
