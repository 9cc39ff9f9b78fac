"""Element-wise functions whose bits do not depend on where a value stands in a tensor.

Torch's own vectorised activations round differently in their bodies and their scalar tails; those
of `exp`, `tanh` and `erf` do not, so everything here is composed of them.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

_GELU = 2 * sqrt(2 / pi)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return x / torch.exp(-x).add_(1)


def gelu(x: Tensor) -> Tensor:
    """The exact form."""
    return x * 0.5 * (1 + torch.erf(x / sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form: (1 + tanh(u)) / 2 is sigmoid(2u)."""
    return x / torch.exp(-_GELU * (x + 0.044715 * x * x * x)).add_(1)


def softcap(x: Tensor, cap: float) -> Tensor:
    """Bend `x` into (-cap, cap), in place."""
    return x.div_(cap).tanh_().mul_(cap)
