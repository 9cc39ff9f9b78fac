"""Weights in the layout that the kernels read, and the structs that point at them.

A matrix [n, k] becomes panels of 16 rows (csrc/ridgeline.h says how), rounded up to `WIDTH` with
zeros. Packing changes no value, but for int8, where every group of a row is scaled to whole
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import BF16, F32, INT8, PANEL, WIDTH, Int8Form, Matrix

_PART = 1024
"""Rows; whole panels."""
_TYPES = {torch.float32: F32, torch.bfloat16: BF16, torch.int8: INT8}


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """The tensors of one matrix: `data` in panels, whose type is that of the numbers in it."""

    data: Tensor
    n: int
    k: int
    bias: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """All that there are."""
        return [tensor for tensor in (self.data, self.bias) if tensor is not None]

    def struct(self) -> Matrix:
        """Points at the tensors, which must outlive it."""
        return Matrix(
            data=self.data.data_ptr(),
            bias=address(self.bias),
            type=_TYPES[self.data.dtype],
            n=self.n,
            k=self.k,
        )


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def round_up(number: int, to: int = WIDTH) -> int:
    return -(-number // to) * to


def pack(
    weight: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    *,
    int8: Int8Form | None = None,
    keep: Callable[[Tensor], Tensor] = Tensor.contiguous,
) -> PackedMatrix:
    """`weight` [n, k] as panels of `dtype`: float32, bfloat16, or int8 in the form that the kernels
    in use ask for. `keep` makes the contiguous copy that stays."""
    weight = _padded_matrix(weight)
    n, k = weight.shape
    if dtype is torch.int8:
        assert int8 is not None, "numbers of 8 bits have a form"
        # In parts: memory for all of a head at once is slow to come by.
        parts = torch.split(weight, _PART)
        panels = torch.cat([_int8_panels(part.float(), int8) for part in parts])
    else:
        together = 2 if dtype is torch.bfloat16 else 1
        panels = weight.to(dtype).view(n // PANEL, PANEL, k // together, together)
        panels = panels.permute(0, 2, 1, 3)
    padded = None if bias is None else _padded(bias.float(), n)
    return PackedMatrix(keep(panels), n, k, padded)


def interleave(gate_up: Tensor) -> Tensor:
    """[2 * m, k], all gate rows first, to panels in turns: 16 gate rows, their 16 up rows, ..."""
    gate, up = gate_up.chunk(2)
    rows, k = gate.shape
    padding = (0, 0, 0, round_up(rows) - rows)
    gate, up = (torch.nn.functional.pad(part, padding).view(-1, PANEL, k) for part in (gate, up))
    return torch.stack([gate, up], 1).flatten(0, 2)


def _int8_panels(weight: Tensor, form: Int8Form) -> Tensor:
    """[panels, words, 16, 4]: whole groups, then what is left of a row."""
    whole = weight.shape[1] // form.group * form.group
    parts = [weight[:, :whole].reshape(len(weight), -1, form.group)] if whole else []
    if whole < weight.shape[1]:
        parts.append(weight[:, None, whole:])
    return torch.cat([_int8_groups(part, narrow=bool(form.narrow)) for part in parts], 1)


def _int8_groups(groups: Tensor, *, narrow: bool) -> Tensor:
    """Symmetric, one scale for each of [n, groups, group]: w ~ scale * q with |q| <= 127.

    Narrow: four products with activations from 0 to 255 are added in 16 bits, where the processor
    has nothing wider for bytes. Of the four weights neither the positive nor the negative ones may
    add up to more than 128. That, more often than the largest one, decides the scale. The noise
    is about that of one scale for a whole row of numbers up to 127.
    """
    n, _, size = groups.shape
    sizes = groups.abs()
    most = sizes.amax(-1).div_(127)
    if narrow:
        # (sizes + |sum|) / 2 is the larger one of both signs' sums. Four roundings add up to 2, and
        # that of the scale to a quarter.
        fours = _fours(size)
        sums = (sizes @ fours).add_((groups @ fours).abs_()).amax(-1).div_(2 * (128 - 2))
        most = torch.maximum(most, sums)
    # As the kernel will read it; a group of zeros has no scale of its own.
    scale = most.to(torch.bfloat16)
    divisor = scale.float().clamp_(min=torch.finfo(torch.float32).tiny)
    numbers = groups.div(divisor[..., None]).round_().clamp_(-127, 127).to(torch.int8)
    taken = -numbers.sum(-1, dtype=torch.int16)
    words = torch.stack([taken, scale.view(torch.int16)], -1).view(torch.int32)
    # In words: a quarter of the moves. [panel, row, word] to [panel, word, row].
    rows = torch.cat([numbers.view(torch.int32), words], -1).view(n // PANEL, PANEL, -1)
    return rows.permute(0, 2, 1).contiguous().view(torch.int8)


def _fours(size: int) -> Tensor:
    """[size, size / 4]: adds up of every eight numbers 0, 1, 4, 5 and 2, 3, 6, 7."""
    word, half = torch.arange(size) // 4, torch.arange(size) // 2 % 2
    return torch.nn.functional.one_hot(word // 2 * 2 + half, size // 4).float()


def _padded_matrix(weight: Tensor) -> Tensor:
    rows, columns = weight.shape
    padding = (0, round_up(columns) - columns, 0, round_up(rows) - rows)
    return torch.nn.functional.pad(weight, padding) if any(padding) else weight


def _padded(values: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, size - len(values))).contiguous()
