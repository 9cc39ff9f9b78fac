"""How LoRA adapters are multiplied in torch on the CPU, so that a row ignores its neighbours.

All adapters have matrices of one size (a smaller rank is filled up with zeros, which add nothing),
multiplied in a form that was tried on that size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.cpu.linear import Linear, choose_form
from ridgeline_backends.models.adapted_rows import MakePair
from ridgeline_backends.models.config import DecoderConfig


def make_pairs(config: DecoderConfig, max_rank: int) -> MakePair:
    """`max_rank` as given to `read_adapter`."""
    shapes = config.adapter_shapes(max_rank)
    multiplied = [
        shape
        for rows, columns, rank in shapes.values()
        for shape in ((rank, columns), (rows, rank))
    ]

    def pair(target: str, a: Tensor, b: Tensor) -> tuple[Linear, Linear]:
        # Here, for most models never have an adapter; what was tried once is remembered.
        _, form = choose_form(multiplied, torch.float32)
        missing = shapes[target][2] - a.shape[0]
        return form(F.pad(a, (0, 0, 0, missing))), form(F.pad(b, (0, missing)))

    return pair
