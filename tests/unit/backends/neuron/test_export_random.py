"""Random modules of any operators between layers that shard themselves are what PyTorch computes,
on every number of cores: what differs between cores, and what is the same on all."""

from __future__ import annotations

from collections.abc import Callable

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ridgeline_backends.neuron.export import (
    ColumnParallelLinear,
    ParallelEmbedding,
    RowParallelLinear,
    compile_module,
)

Step = Callable[[Tensor], Tensor]

ROWS, WIDTH = 6, 16

EACH: dict[str, Step] = {
    "where": lambda x: torch.where(x > 0.1, x, x * 0.3),
    "clamp": lambda x: x.clamp(-1, 0.7) + x.abs().sqrt(),
    "elu": lambda x: F.elu(x, 0.5),
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "mish": F.mish,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "sines": lambda x: torch.sin(x) * torch.cos(x) + torch.erf(x),
    "power": lambda x: (x.abs() + 0.1) ** 1.5,
    "exp": lambda x: torch.exp(-x.abs()) + torch.log1p(x * x),
    "fill": lambda x: x.masked_fill(x < -1, 0.5),
    "bool": lambda x: x * ((x > 0) & ~(x > 1)),
    "lerp": lambda x: torch.lerp(x, x.tanh(), 0.4),
    "maximum": lambda x: torch.maximum(x, -x) - torch.minimum(x, x * x),
    "sigmoid": lambda x: x.bool() + x.sigmoid(),
}
"""Number by number: on a core's part as on the whole."""

ALONG_ROWS: dict[str, Step] = {
    "cumsum": lambda x: x.cumsum(0) / ROWS,
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(2, 0),
    "sort": lambda x: x.sort(0, descending=True)[0],
    "least": lambda x: x.topk(ROWS, 0, largest=False)[0],
    "mean": lambda x: x - x.mean(0, keepdim=True),
    "std": lambda x: x / (1 + x.std(0, keepdim=True)),
    "norm": lambda x: F.normalize(x, dim=0),
    "max": lambda x: x - x.max(0)[0],
    "softmax": lambda x: x.log_softmax(0),
    "index": lambda x: x[torch.tensor([5, 0, 4, -5, 2, 3])],
    "gather": lambda x: x.gather(0, x.argsort(dim=0, stable=True)),
    "scatter": lambda x: x.scatter_add(0, x.argmax(0, keepdim=True), x[:1]),
    "put": lambda x: x.index_put((torch.tensor([1, 4]),), x[:2] * 2),
    "pad": lambda x: F.pad(x, (0, 0, 1, -1), value=0.5),
    "tile": lambda x: x.repeat(2, 1)[1 : ROWS + 1],
    "stack": lambda x: torch.stack([x, -x]).amin(0),
    "split": lambda x: torch.cat(x.split([2, 4])[::-1]),
    "einsum": lambda x: torch.einsum("ij,ik->jk", x, x)[:ROWS].sum(0) * 0.01 + x,
    "product": lambda x: (x @ x.T).softmax(-1) @ x,
    "pool": lambda x: F.avg_pool1d(x.T[None], 3, 1, 1, count_include_pad=False)[0].T,
    "largest": lambda x: F.max_pool1d(x.T, 3, 1, 1).T,
}
"""Along the axis that is not cut; those that mix columns are for the whole alone."""

MIXING = ("einsum", "product")

ALONG_COLUMNS: dict[str, Step] = {
    "group": lambda x: F.group_norm(x, 4),
    "layer": lambda x: F.layer_norm(x, (WIDTH,)),
    "batch": lambda x: F.batch_norm(x, torch.zeros(WIDTH), torch.arange(1.0, WIDTH + 1)),
    "triangle": lambda x: x @ torch.ones(WIDTH, WIDTH).tril(-2) * 0.1,
    "cumsum": lambda x: x.cumsum(-1) * 0.1,
    "shuffle": lambda x: F.channel_shuffle(x[..., None, None], 4)[..., 0, 0],
    "conv": lambda x: F.conv1d(x[:, None], torch.ones(1, 1, 3) / 3, padding=2, dilation=2)[:, 0],
    "transposed": lambda x: F.conv_transpose1d(x[:, None], torch.ones(1, 1, 2), stride=2)[
        :, 0, ::2
    ],
    "resize": lambda x: F.interpolate(x[:, None], size=WIDTH, mode="linear")[:, 0],
    "one_hot": lambda x: x + F.one_hot(x.argmax(-1), WIDTH),
    "attention": lambda x: (
        F.scaled_dot_product_attention(
            *[x.view(1, ROWS, 2, 8).transpose(1, 2)] * 3,
            attn_mask=torch.ones(ROWS, ROWS).tril().bool(),
        )
        .transpose(1, 2)
        .reshape(ROWS, WIDTH)
    ),
    "diagonal": lambda x: x + x[:, :ROWS].diagonal()[:, None],
    "select": lambda x: x.index_select(1, torch.arange(WIDTH - 1, -1, -1)),
    "unfold": lambda x: x.unfold(1, 4, 4).sum(-1).repeat_interleave(4, 1) * 0.3,
}


class Chain(nn.Module):
    """ids -> an embedding -> for each of `parts`: to the cores' own columns, steps on those, back
    to whole rows, steps on those."""

    def __init__(self, parts: list[tuple[list[Step], list[Step]]], *, gathered: bool) -> None:
        super().__init__()
        self.embedding = ParallelEmbedding(32, WIDTH)
        self.ups = nn.ModuleList(
            ColumnParallelLinear(WIDTH, 24, gather_output=gathered) for _ in parts
        )
        self.downs = nn.ModuleList(
            RowParallelLinear(24, WIDTH, input_is_parallel=not gathered) for _ in parts
        )
        self.register_buffer("seen", torch.zeros(WIDTH))
        self.parts = parts

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for up, down, (cut, whole) in zip(self.ups, self.downs, self.parts, strict=True):
            own = up(x)
            for step in cut:
                own = step(own)
            x = down(own)
            for step in whole:
                x = step(x)
        self.seen.add_(x.mean(0))  # type: ignore[operator]
        found: Tensor = x + self.seen
        return found


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_random_module_is_what_pytorch_computes_at_every_degree(data: st.DataObject) -> None:
    cut = {**EACH, **{name: one for name, one in ALONG_ROWS.items() if name not in MIXING}}
    whole = {**{f"rows {n}": one for n, one in ALONG_ROWS.items()}, **ALONG_COLUMNS, **EACH}

    def steps(pool: dict[str, Step]) -> list[Step]:
        names = data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, max_size=4))
        return [pool[name] for name in names]

    parts = [(steps(cut), steps(whole)) for _ in range(data.draw(st.integers(1, 2)))]
    gathered = data.draw(st.booleans())
    torch.manual_seed(data.draw(st.integers(0, 99)))

    def make() -> nn.Module:
        return Chain(parts, gathered=gathered)

    module = make().eval()
    weights = {name: one.clone() for name, one in module.state_dict().items()}
    # Equal rows would differ in their last bits alone, and what argmax takes with them.
    calls = [torch.randperm(32)[:ROWS] for _ in range(2)]
    with torch.inference_mode():
        expected = [module(ids) for ids in calls]
    for degree in (1, 2, 4, 8):
        compiled = compile_module(make, (calls[0],), weights=weights, tensor_parallel=degree)
        for ids, theirs in zip(calls, expected, strict=True):
            ours = compiled(ids)
            assert torch.allclose(ours, theirs, rtol=2e-3, atol=2e-3), f"degree {degree}"
