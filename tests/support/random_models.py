"""Random models of any Hugging Face class, written as real model directories."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel


def save_random(
    kind: type[PreTrainedModel], config: PreTrainedConfig, folder: Path, *, seed: int = 0
) -> PreTrainedModel:
    """Write the model and return it, in float32 and ready to run.

    The classes initialise biases to 0 and norms to 1 (or 0), where a bias that is left out or a
    norm that is read wrong would not show: so everything is drawn anew.
    """
    torch.manual_seed(seed)
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if value.dim() > 1:
                value.copy_(drawn * (1.0 if "embed" in name else 0.15))
            else:
                value.add_(drawn * 0.2)
    model.tie_weights()
    model.save_pretrained(folder)
    return model
