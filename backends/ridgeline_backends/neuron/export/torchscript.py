"""TorchScript as a module that `torch.export` takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Interpreted(nn.Module):
    """A script, run operator by operator: of loops and branches that sizes decide, the graph has
    what ran."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        # Frozen, weights are constants: a script's are no nn.Parameter, and torch.export wants
        # these. What the script writes into stays a buffer.
        self.script = torch.jit.freeze(script.eval(), optimize_numerics=False)

    def forward(self, *inputs: Tensor) -> object:
        return self.script(*inputs)
