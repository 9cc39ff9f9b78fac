"""One core's part of a training step: a microbatch there and back, gradients, the optimizer.

Tensor, data and pipeline parallel (NxD Training). The list of the way back follows from that of the
way there: a product comes back as two, anything else as twice itself. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from ridgeline_backends.neuron.builders.encoder import (
    EncoderShape,
    layer_section,
    product,
    stream,
)
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    AllGather,
    AllReduce,
    Attention,
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
    OperationKind,
    Program,
    Section,
)

Recomputed = Literal["none", "attention", "all"]

_ADAM, _LAMB = 7, 10
"""An optimizer's step in operations that read two arrays of all its numbers and write one. AdamW as
torch writes it: decay (1 read, 1 written), first moment (2, 1), second moment (1, 1) and (2, 1),
root (1, 1), quotient (1, 1), constant (1, 1), update (3, 1): 20 arrays. LAMB reads weights and
updates again for their norms, scales the updates and applies them: 8 more."""

_BUCKET_BYTES = {False: 50 << 20, True: 512 << 20}
"""So many bytes of gradients are summed at once: ALLREDUCE_GRADIENTS_BUCKET_SIZE_MB as
torch-neuronx sets it, and NxD's bucket where tensors are parallel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """`tensor` x `data` x `pipeline` cores. `zero`: gradients and optimizer states are cut over
    the data-parallel cores. `recompute`: activations are made again on the way back.
    `dropout`: a tenth of them is dropped at random. `scored`: positions of a sequence whose logits
    are wanted. `lamb`: that optimizer, else Adam. `own_layers`: how many have weights of their own;
    0: all. `whole_gradients`: they are summed in fp32. `sequence_parallel`: of the tensor-parallel
    cores each keeps its part of the positions between the products."""

    shape: EncoderShape
    tensor: int
    data: int
    pipeline: int
    microbatch: int
    global_batch: int
    length: int
    scored: int
    zero: bool = False
    recompute: Recomputed = "none"
    dropout: bool = False
    lamb: bool = False
    own_layers: int = 0
    whole_gradients: bool = False
    sequence_parallel: bool = False

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
        layers = (self.own_layers or s.layers) // self.pipeline * (inner + heads)
        return (layers + s.vocab * s.hidden) // self.tensor


def build_microbatch(plan: TrainingPlan) -> Program:
    """One microbatch there and back through one stage of the pipeline."""
    shape = replace(plan.shape, layers=max(1, plan.shape.layers // plan.pipeline))
    layers = _with_dropout(
        plan,
        layer_section(
            shape,
            batch=plan.microbatch,
            length=plan.length,
            cores=plan.tensor,
            sequence_parallel=plan.sequence_parallel,
        ),
    )
    # Stages wait for the slowest, which is the one with the head.
    passed = () if plan.pipeline == 1 else (_pass(plan),)
    there = (_embedding(plan), layers, _head(plan), *passed)
    back = tuple(_back(section) for section in reversed(there))
    sections = (*there, *_again(plan, layers), *back, *_accumulation(plan))
    return Program("training", sections, cores=plan.tensor, batch=plan.microbatch)


def build_update(plan: TrainingPlan) -> Program:
    """Gradients summed over the data-parallel cores, and the optimizer's step."""
    own = plan.parameters
    sections: list[Section] = []
    if plan.data > 1:
        own = -(-own // plan.data) if plan.zero else own
        sections.append(_gradient_sum(plan))
    out = Listing("optimizer", plan.data)
    state = weight("state", own, dtype=ElementType.FP32)
    for index in range(_LAMB if plan.lamb else _ADAM):
        other = weight(f"state{index}", own, dtype=ElementType.FP32)
        out.into(Binary("add"), state, other, target=state)
    if plan.zero and plan.data > 1:
        part = weight("updated", own, dtype=ElementType.BF16)
        out.add(AllGather(Group(plan.data, plan.tensor), 0), part, to="parameters")
    return Program("update", (*sections, out.section()), cores=plan.data)


def _gradient_sum(plan: TrainingPlan) -> Section:
    """Bucket by bucket."""
    out = Listing("gradients", plan.data)
    dtype = ElementType.FP32 if plan.whole_gradients else ElementType.BF16
    bucket = _BUCKET_BYTES[plan.tensor > 1]
    buckets = max(1, -(-plan.parameters * dtype.bytes // bucket))
    count = -(-plan.parameters // buckets // plan.data) * plan.data
    gradients = weight("gradients", count, dtype=dtype)
    group = Group(plan.data, plan.tensor)
    if plan.zero:
        out.add(ReduceScatter(group, 0), gradients, to="own")
    else:
        out.add(AllReduce(group), gradients, to="summed")
    return out.section(repeats=buckets)


def _accumulation(plan: TrainingPlan) -> tuple[Section, ...]:
    """Gradients of a microbatch added to those of the ones before it."""
    if plan.microbatches == 1:
        return ()
    out = Listing("accumulation", 1)
    dtype = ElementType.FP32 if plan.whole_gradients else ElementType.BF16
    sums = weight("sums", plan.parameters, dtype=dtype)
    new = weight("new", plan.parameters, dtype=dtype)
    out.into(Binary("add"), sums, new, target=sums)
    return (out.section(),)


def _again(plan: TrainingPlan, layers: Section) -> tuple[Section, ...]:
    """Activations that were not kept."""
    kinds = {"none": (), "attention": (Attention,), "all": (OperationKind,)}[plan.recompute]
    operations = tuple(one for one in layers.operations if isinstance(one.attributes, kinds))
    return (replace(layers, name="layers.again", operations=operations),) if operations else ()


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
    logits = product(out, shape, Buffer("hidden", form), matrix, to="logits")
    out.add(Softmax(), logits, to="shares")
    return out.section()


def _pass(plan: TrainingPlan) -> Section:
    """On to the next stage, which may lie on another instance: each core what it keeps."""
    out = Listing("pass", plan.tensor)
    own = -(-plan.length // plan.tensor) if plan.sequence_parallel else plan.length
    hidden = stream(plan.shape, plan.microbatch, own)
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
    # A gradient is cast as its product's input was.
    y = replace(operation.outputs[0], form=replace(operation.outputs[0].form, dtype=x.dtype))
    rows, columns, inner = prod(x.shape[:-1]), *matrix.shape
    turned = replace(matrix, form=replace(matrix.form, shape=(inner, columns)))
    dx = Operation(Matmul(), (y, turned), (x,), operation.layer)
    # Gradients of a matrix contract over the tokens, which are then read the other way round.
    left = Buffer("dy.turned", Form((columns, rows), y.dtype))
    right = Buffer("x.turned", Form((inner, rows), x.dtype))
    form = Form((columns, inner), x.dtype)
    made = Buffer(f"{matrix.name}.gradient", form, BufferKind.WEIGHT)
    return (dx, Operation(Matmul(), (left, right), (made,), operation.layer))
