"""Matrix products that give a row the same bits whatever rows are beside it.

A library chooses its kernel, and with it the order of a sum, by the number of rows. So that number
is always the same: fewer are filled up, more are multiplied in parts. A step of decodes is bound by
reading the weights, and the rows it is filled up with cost next to nothing; a prefill reads the
weights once for each part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.decoder import Linear

ROWS = 128


def fixed_rows(weight: Tensor) -> Linear:
    """Multiply by `weight` [out, in], in its type and on its device."""
    dtype = weight.dtype

    def linear(x: Tensor) -> Tensor:
        rows = x.shape[0]
        padded = F.pad(x.to(dtype), (0, 0, 0, -rows % ROWS))
        products = [F.linear(part, weight) for part in torch.split(padded, ROWS)]
        whole = products[0] if len(products) == 1 else torch.cat(products)
        return whole[:rows].float()

    return linear
