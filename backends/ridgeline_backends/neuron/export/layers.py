"""Layers that hold one core's part of their weights, with NxD's names and arguments.

A module that is made of them for one core holds whole weights: its state dict is the checkpoint
that is cut for more cores. How a weight is cut is written on it: `partition_dim`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ridgeline_backends.neuron.export.errors import CompileError
from ridgeline_backends.neuron.export.functions import all_gather, all_reduce, own_part
from ridgeline_backends.neuron.export.functions import sharded_embedding as _sharded_embedding
from ridgeline_backends.neuron.export.parallel_state import get_tensor_model_parallel_size

PARTITION = "partition_dim"
WHOLE = "whole_size"
"""How long the whole weight is along the axis it is cut along, without what fills it up."""


def _share(size: int, parts: int, what: str, *, pad: bool) -> int:
    if size % parts and not pad:
        raise CompileError(
            f"{what} {size} does not divide into {parts} equal parts.",
            hint="Choose another tensor-parallel degree, or pass pad=True.",
        )
    return -(-size // parts)


def _parameter(
    *shape: int, dim: int | None, dtype: torch.dtype, whole: int | None = None
) -> nn.Parameter:
    """A weight that is cut along `dim`, where the whole is `whole` long, or held whole by every
    core."""
    parameter = nn.Parameter(torch.empty(*shape, dtype=dtype))
    if dim is not None:
        setattr(parameter, PARTITION, dim)
        setattr(parameter, WHOLE, whole)
    return parameter


class ColumnParallelLinear(nn.Module):
    """x [..., in] by the core's rows of a weight [out, in]: its own columns of the result, or with
    `gather_output` all of them."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        gather_output: bool = True,
        dtype: torch.dtype = torch.float32,
        pad: bool = False,
    ) -> None:
        super().__init__()
        self.size = get_tensor_model_parallel_size()
        self.gather_output = gather_output
        self.output_size = output_size
        own = _share(output_size, self.size, "output_size", pad=pad)
        self.weight = _parameter(own, input_size, dim=0, dtype=dtype, whole=output_size)
        self.bias = _parameter(own, dim=0, dtype=dtype, whole=output_size) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        if not self.gather_output or self.size == 1:
            return out
        gathered: Tensor = all_gather(out, out.dim() - 1, self.size)
        return gathered[..., : self.output_size]


class RowParallelLinear(nn.Module):
    """The core's columns of x by its columns of a weight [out, in], summed over the cores unless
    `reduce_output` is False. With `input_is_parallel` x is the core's own columns already. The bias
    is added once, to the sum."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        input_is_parallel: bool = False,
        dtype: torch.dtype = torch.float32,
        reduce_output: bool = True,
    ) -> None:
        super().__init__()
        self.size = get_tensor_model_parallel_size()
        self.input_is_parallel = input_is_parallel
        self.reduce_output = reduce_output
        own = _share(input_size, self.size, "input_size", pad=False)
        self.weight = _parameter(output_size, own, dim=1, dtype=dtype, whole=input_size)
        self.bias = _parameter(output_size, dim=None, dtype=dtype) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.input_is_parallel and self.size > 1:
            x = own_part(x, x.dim() - 1, self.size)
        out = F.linear(x, self.weight)
        if self.reduce_output and self.size > 1:
            out = all_reduce(out, self.size)
        return out if self.bias is None else out + self.bias


class ParallelEmbedding(nn.Module):
    """A table [num_embeddings, embedding_dim], cut by rows, the parts summed; or with
    `shard_across_embedding` by columns, the parts gathered."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        dtype: torch.dtype = torch.float32,
        shard_across_embedding: bool = False,
        pad: bool = False,
    ) -> None:
        super().__init__()
        self.size = get_tensor_model_parallel_size()
        self.num_embeddings = num_embeddings
        self.shard_across_embedding = shard_across_embedding
        if shard_across_embedding:
            own = _share(embedding_dim, self.size, "embedding_dim", pad=False)
            self.weight = _parameter(num_embeddings, own, dim=1, dtype=dtype, whole=embedding_dim)
        else:
            own = _share(num_embeddings, self.size, "num_embeddings", pad=pad)
            self.weight = _parameter(own, embedding_dim, dim=0, dtype=dtype, whole=num_embeddings)
        nn.init.normal_(self.weight)

    def forward(self, ids: Tensor) -> Tensor:
        if self.size == 1:
            return F.embedding(ids, self.weight)
        if self.shard_across_embedding:
            own = F.embedding(ids, self.weight)
            gathered: Tensor = all_gather(own, own.dim() - 1, self.size)
            return gathered
        own = _sharded_embedding(self.weight, ids, self.size, self.num_embeddings)
        found: Tensor = all_reduce(own, self.size)
        return found
