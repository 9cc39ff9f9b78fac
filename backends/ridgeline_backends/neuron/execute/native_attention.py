"""Attention by the processor backend's kernels, where they are, instead of `attention`'s tiles.

Both give a query the same bits whatever its batch, its bucket and what was compiled; which of the
two computes a program depends on the program's kinds alone, so that prompts and decodes agree.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import BF16, F32, Attention, Library, library
from ridgeline_backends.neuron.execute.linear import Scratch
from ridgeline_backends.neuron.program import ElementType

KERNEL_TYPES = {torch.float32: F32, torch.bfloat16: BF16}
"""What the kernels call the types that a cache may have."""


def kernels_for(dtype: ElementType) -> Library | None:
    """What computes attention whose results are of this type; None where torch does."""
    return library() if dtype in (ElementType.BF16, ElementType.FP32) else None


def attend_native(
    kernels: Library,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    slots: Tensor,
    scratch: Scratch,
    *,
    scale: float,
    cap: float | None,
    window: int | None,
    dtype: ElementType,
) -> Tensor:
    """q [batch, queries, heads, dim] at positions [batch, queries] over k and v [slots, KV heads,
    entries, dim or width], strided but for the last axis, of which slots [batch] says whose ->
    [batch, queries, heads, width]. Zeros for a query at a negative position."""
    batch, queries, heads, dim = q.shape
    _, kv_heads, entries, width = v.shape
    q = q.contiguous()
    owners = slots if queries == 1 else slots.repeat_interleave(queries)
    places = positions.contiguous()
    out = torch.empty(batch, queries, heads, width)
    threads = torch.get_num_threads()
    job = Attention(
        q=q.data_ptr(),
        k=k.data_ptr(),
        v=v.data_ptr(),
        position=places.data_ptr(),
        slot=owners.data_ptr(),
        out=out.data_ptr(),
        slot_stride=k.stride(0),
        head_stride=k.stride(1),
        entry_stride=k.stride(2),
        value_slot_stride=v.stride(0),
        value_head_stride=v.stride(1),
        value_entry_stride=v.stride(2),
        rows=batch * queries,
        heads=heads,
        kv_heads=kv_heads,
        dim=dim,
        width=width,
        window=window or 0,
        type=KERNEL_TYPES[k.dtype],
        round=dtype is ElementType.BF16,
        entries=entries,
        threads=threads,
        scale=scale,
        softcap=cap or 0.0,
    )
    kernels.attend(job, scratch.address(kernels.attention_scratch_bytes(entries, threads)))
    return out


@lru_cache(maxsize=16)
def prompt_rows(batch: int, queries: int) -> tuple[Tensor, Tensor]:
    """The positions [batch, queries] and slots [batch] of prompts that begin at 0."""
    return torch.arange(queries).repeat(batch, 1), torch.arange(batch)
