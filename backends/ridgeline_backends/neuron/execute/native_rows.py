"""Norms, rotary positions and cache entries by the processor backend's kernels, where they are.

Each is a call that would be half a dozen of torch's, a hundred times a step. Which of the two
computes a program depends on its kinds and types alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import Library, Put, Turn
from ridgeline_backends.neuron.execute.native_attention import KERNEL_TYPES


def norm_native(kernels: Library, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., n] over its root mean square, times a float32 weight [n]."""
    x, weight = x.contiguous(), weight.contiguous()
    out, n = torch.empty_like(x), weight.numel()
    kernels.norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // n, n, eps)
    return out


def turn_native(kernels: Library, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., batch, length, heads, dim] at positions [batch, length], by float32 tables."""
    out = x.clone(memory_format=torch.contiguous_format)
    heads, dim = x.shape[-2:]
    kernels.turn_rows(
        Turn(
            x=out.data_ptr(),
            position=positions.data_ptr(),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            rows=x.numel() // (heads * dim),
            period=positions.numel(),
            heads=heads,
            dim=dim,
            rotary=cos.shape[-1],
        )
    )
    return out


def put_native(
    kernels: Library, cache: Tensor, new: Tensor, positions: Tensor, slots: Tensor
) -> None:
    """New entries [batch, length, heads, dim] into a cache [slots, heads, entries, dim]."""
    new = new.contiguous()
    batch, length, heads, dim = new.shape
    kernels.put_entries(
        Put(
            cache=cache.data_ptr(),
            entries=new.data_ptr(),
            position=positions.data_ptr(),
            slot=slots.data_ptr(),
            slot_stride=cache.stride(0),
            head_stride=cache.stride(1),
            entry_stride=cache.stride(2),
            rows=batch * length,
            each=length,
            heads=heads,
            dim=dim,
            type=KERNEL_TYPES[cache.dtype],
        )
    )


def whole(*tensors: Tensor) -> bool:
    """Whether the kernels can read these as they lie."""
    return all(one.is_contiguous() for one in tensors)
