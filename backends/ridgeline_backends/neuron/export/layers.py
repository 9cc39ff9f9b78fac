"""Layers that hold one core's part of their weights, with NxD's names and arguments in its order.

A module that is made of them for one core holds whole weights: its state dict is the checkpoint
that is cut for more cores. How a weight is cut is written on it: `partition_dim`. Arguments that
matter to gradients alone are taken and change nothing; one that asks for what is not done here is
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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


Initialise = Callable[[Tensor], object]
"""Fills a weight in its place."""

_UNIFORM = partial(nn.init.kaiming_uniform_, a=5**0.5)

_USUAL: dict[str, object] = {
    "device": None,
    "stride": 1,
    "sequence_parallel_enabled": False,
    "keep_master_weight": False,
    "skip_bias_add": False,
    "max_norm": None,
    "tensor_model_parallel_group": None,
    "reduce_dtype": torch.float32,
}
"""Of the arguments that are known and have one meaning here."""


def _check(layer: str, **given: object) -> None:
    """Raises `CompileError` for an argument that asks for what is not done."""
    for name, value in given.items():
        on_host = name == "device" and str(value) == "cpu"
        if value != _USUAL[name] and not on_host:
            raise CompileError(
                f"{layer} has no {name}={value!r} here.",
                hint=f"Leave {name} out, or pass {_USUAL[name]}.",
            )


def _fill(weight: nn.Parameter, bias: nn.Parameter | None, init_method: Initialise) -> None:
    with torch.no_grad():
        init_method(weight)
        if bias is not None:
            bias.zero_()


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
    `gather_output` all of them. `pad` fills them up where they do not divide."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        gather_output: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        stride: int = 1,
        init_method: Initialise | None = None,
        sequence_parallel_enabled: bool = False,
        sequence_dimension: int | None = None,
        keep_master_weight: bool = False,
        skip_bias_add: bool = False,
        pad: bool = False,
        tensor_model_parallel_group: object = None,
        reduce_dtype: torch.dtype = torch.float32,
    ) -> None:
        _check(
            "ColumnParallelLinear",
            device=device,
            stride=stride,
            sequence_parallel_enabled=sequence_parallel_enabled,
            keep_master_weight=keep_master_weight,
            skip_bias_add=skip_bias_add,
            tensor_model_parallel_group=tensor_model_parallel_group,
        )
        super().__init__()
        self.size = get_tensor_model_parallel_size()
        self.gather_output = gather_output
        self.output_size = output_size
        own = _share(output_size, self.size, "output_size", pad=pad)
        self.weight = _parameter(own, input_size, dim=0, dtype=dtype, whole=output_size)
        self.bias = _parameter(own, dim=0, dtype=dtype, whole=output_size) if bias else None
        _fill(self.weight, self.bias, init_method or _UNIFORM)

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        if not self.gather_output or self.size == 1:
            return out
        gathered: Tensor = all_gather(out, out.dim() - 1, self.size)
        return gathered[..., : self.output_size]


class RowParallelLinear(nn.Module):
    """The core's columns of x by its columns of a weight [out, in], summed over the cores unless
    `reduce_output` is False. With `input_is_parallel` x is the core's own columns already. `pad`
    fills them up where they do not divide. The bias is added to the sum; to a summand that is not
    summed here every core adds all of it."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        input_is_parallel: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        stride: int = 1,
        init_method: Initialise | None = None,
        sequence_parallel_enabled: bool = False,
        sequence_dimension: int | None = None,
        keep_master_weight: bool = False,
        skip_bias_add: bool = False,
        pad: bool = False,
        reduce_output: bool = True,
        tensor_model_parallel_group: object = None,
        reduce_dtype: torch.dtype = torch.float32,
    ) -> None:
        _check(
            "RowParallelLinear",
            device=device,
            stride=stride,
            sequence_parallel_enabled=sequence_parallel_enabled,
            keep_master_weight=keep_master_weight,
            skip_bias_add=skip_bias_add,
            tensor_model_parallel_group=tensor_model_parallel_group,
            reduce_dtype=reduce_dtype,
        )
        super().__init__()
        self.size = get_tensor_model_parallel_size()
        self.input_is_parallel = input_is_parallel
        self.reduce_output = reduce_output
        own = _share(input_size, self.size, "input_size", pad=pad)
        self.lacking = own * self.size - input_size
        self.weight = _parameter(output_size, own, dim=1, dtype=dtype, whole=input_size)
        self.bias = _parameter(output_size, dim=None, dtype=dtype) if bias else None
        _fill(self.weight, self.bias, init_method or _UNIFORM)

    def forward(self, x: Tensor) -> Tensor:
        if not self.input_is_parallel and self.size > 1:
            whole = F.pad(x, (0, self.lacking)) if self.lacking else x
            x = own_part(whole, x.dim() - 1, self.size)
        out = F.linear(x, self.weight)
        if self.reduce_output and self.size > 1:
            out = all_reduce(out, self.size)
        return out if self.bias is None else out + self.bias


class ParallelEmbedding(nn.Module):
    """A table [num_embeddings, embedding_dim], cut by rows, the parts summed; or with
    `shard_across_embedding` by columns, the parts gathered. `pad` fills up what does not divide."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        init_method: Initialise = nn.init.normal_,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        shard_across_embedding: bool = False,
        pad: bool = False,
        sequence_parallel_enabled: bool = False,
        tensor_model_parallel_group: object = None,
        use_spmd_rank: bool = False,
    ) -> None:
        _check(
            "ParallelEmbedding",
            max_norm=max_norm,
            device=device,
            sequence_parallel_enabled=sequence_parallel_enabled,
            tensor_model_parallel_group=tensor_model_parallel_group,
        )
        super().__init__()
        self.size = get_tensor_model_parallel_size()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.shard_across_embedding = shard_across_embedding
        if shard_across_embedding:
            own = _share(embedding_dim, self.size, "embedding_dim", pad=pad)
            self.weight = _parameter(num_embeddings, own, dim=1, dtype=dtype, whole=embedding_dim)
        else:
            own = _share(num_embeddings, self.size, "num_embeddings", pad=pad)
            self.weight = _parameter(own, embedding_dim, dim=0, dtype=dtype, whole=num_embeddings)
        _fill(self.weight, None, init_method)

    def forward(self, ids: Tensor) -> Tensor:
        if self.size == 1:
            return F.embedding(ids, self.weight)
        if self.shard_across_embedding:
            own = F.embedding(ids, self.weight)
            gathered: Tensor = all_gather(own, own.dim() - 1, self.size)
            return gathered[..., : self.embedding_dim]
        own = _sharded_embedding(self.weight, ids, self.size, self.num_embeddings)
        found: Tensor = all_reduce(own, self.size)
        return found
