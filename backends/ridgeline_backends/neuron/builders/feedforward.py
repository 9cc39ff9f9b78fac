"""What a layer does with each token by itself: an MLP, or a mixture of experts.

Each function takes the normed hidden state [batch, length, hidden] and gives the core's part of a
sum over the cores, of the same shape.
"""

from __future__ import annotations

from ridgeline_backends.neuron.builders.architecture import Experts, Mlp
from ridgeline_backends.neuron.builders.site import Site
from ridgeline_backends.neuron.operations import (
    Binary,
    Combine,
    ExpertMatmul,
    Gated,
    Softmax,
    TopK,
    Unary,
)
from ridgeline_backends.neuron.operations.elementwise import GatedFunction, UnaryFunction
from ridgeline_backends.neuron.operations.experts import EXPERT_BLOCK_ROWS
from ridgeline_backends.neuron.partition import round_up
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Form, InvalidProgram


def feed_forward(site: Site, mlp: Mlp | Experts, x: Buffer) -> Buffer:
    """The core's part of what the MLP or the experts give."""
    return _mlp(site, mlp, x) if isinstance(mlp, Mlp) else _experts(site, mlp, x)


def _mlp(site: Site, mlp: Mlp, x: Buffer) -> Buffer:
    out = site.out
    own = round_up(mlp.intermediate, site.cores) // site.cores
    if mlp.gated:
        both = site.linear(x, "mlp.gate_up", 2 * own, to="mlp.gate_up.out", bias=mlp.bias, joined=2)
        inner = out.add(Gated(_gated(mlp.function)), both, to="mlp.inner")
    else:
        up = site.linear(x, "mlp.up", own, to="mlp.up.out", bias=mlp.bias)
        inner = out.add(Unary(mlp.function), up, to="mlp.inner")
    return site.linear(inner, "mlp.down", site.model.hidden, to="mlp.down.out")


def _experts(site: Site, experts: Experts, x: Buffer) -> Buffer:
    """With `ep_degree` groups of cores that hold experts of their own, whose columns are cut over
    the cores of a group. A decode step reads the experts that its tokens can choose, at most; a
    prompt reads all of them. Where tokens can choose all of them and do not fill a block, or
    are taken for a decode step, every expert computes every token."""
    out = site.out
    tokens = x.shape[0] * x.shape[1]
    groups = site.config.ep_degree
    cut = site.cores // groups
    held = round_up(experts.count, groups) // groups
    own = round_up(experts.intermediate, cut) // cut
    flat = out.shape(x, tokens, site.model.hidden, to="experts.x")
    scores = out.linear(
        flat,
        site.matrix("experts.router", experts.count, site.model.hidden, whole=True),
        to="experts.scores",
        output=ElementType.FP32,
    )
    shares = out.add(Softmax(), scores, to="experts.shares")
    values, ids = out.add_all(TopK(experts.chosen), (shares,), ("experts.values", "experts.ids"))
    choices = tokens * experts.chosen
    length = x.shape[0] if site.rules.batch_for_length else x.shape[1]
    few = length == 1 or choices < EXPERT_BLOCK_ROWS
    kind = ExpertMatmul(
        experts_read=min(held, choices),
        rows=tokens * held if few and choices >= experts.count else None,
        rewritten=not site.rules.expert_kernel,
    )
    rank = (site.rank,) if groups > 1 else ()

    def product(operand: Buffer, name: str, rows: int, columns: int) -> Buffer:
        form = Form((held, rows, columns), site.config.weight_dtype)
        matrices = Buffer(site.name(f"experts.{name}"), form, BufferKind.WEIGHT)
        return out.add(kind, operand, matrices, ids, *rank, to=f"experts.{name}.out")

    both = product(flat, "gate_up", 2 * own, site.model.hidden)
    inner = out.add(Gated(_gated(experts.function)), both, to="experts.inner")
    down = product(inner, "down", site.model.hidden, own)
    routed = out.add(Combine(), down, values, to="experts.combined")
    routed = out.shape(routed, *x.shape, to="experts.out")
    if not experts.shared:
        return routed
    columns = round_up(experts.shared, site.cores) // site.cores
    both = site.linear(
        x, "experts.shared.gate_up", 2 * columns, to="experts.shared.gate_up.out", joined=2
    )
    inner = out.add(Gated(_gated(experts.function)), both, to="experts.shared.inner")
    every = site.linear(inner, "experts.shared.down", site.model.hidden, to="experts.shared.out")
    return out.add(Binary("add"), routed, every, to="experts.sum")


def _gated(function: UnaryFunction) -> GatedFunction:
    if function == "silu":
        return "silu"
    if function == "gelu":
        return "gelu"
    if function == "gelu_tanh":
        return "gelu_tanh"
    raise InvalidProgram(f"A gated MLP by {function!r} is not one there is.")
