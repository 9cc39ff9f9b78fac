"""Rotary positions: the tables of cosines and sines, with every rescaling in use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ridgeline_backends.models.rope_config import RopeConfig


def rope_tables(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin, [positions, dim]: for both halves of a head, sin negated for the first.

    `dim` is the part of a head that is turned. longrope has frequencies for short and for long
    contexts: `positions`, the longest sequence served, decides, for all sequences alike.
    """
    angles = torch.outer(torch.arange(positions).float(), _frequencies(rope, dim, positions))
    cos, sin = angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn [..., dim]: the halves against each other; `sin` carries the sign of the first. What
    lies beyond the width of the tables stays as it is."""
    turned = x[..., : cos.shape[-1]]
    turned = (turned * cos).add_(turned.roll(turned.shape[-1] // 2, -1).mul_(sin))
    if cos.shape[-1] == x.shape[-1]:
        return turned
    return torch.cat([turned, x[..., cos.shape[-1] :]], -1)


def _frequencies(rope: RopeConfig, dim: int, positions: int) -> Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    if rope.kind == "longrope":
        long = positions > rope.original_context
        factors = torch.tensor(rope.long_factors if long else rope.short_factors)
        return 1.0 / (factors * rope.theta**exponents)
    frequencies = 1.0 / rope.theta**exponents
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        return _llama3(frequencies, rope)
    if rope.kind == "yarn":
        return _yarn(frequencies, rope, dim)
    return frequencies


def _llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1 report)."""
    turns = rope.original_context * frequencies / (2 * math.pi)
    span = rope.high_freq_factor - rope.low_freq_factor
    keep = ((turns - rope.low_freq_factor) / span).clamp(0, 1)
    return (1 - keep) * frequencies / rope.factor + keep * frequencies


def _yarn(frequencies: Tensor, rope: RopeConfig, dim: int) -> Tensor:
    """As llama3, but the ramp is even over dimensions (YaRN, arXiv 2309.00071)."""

    def dimension(turns: float) -> float:
        """The pair that turns so often within the original context."""
        wavelength = rope.original_context / (turns * 2 * math.pi)
        return dim * math.log(wavelength) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp
    keep = 1 - ((torch.arange(dim // 2).float() - low) / (high - low)).clamp(0, 1)
    return frequencies / rope.factor * (1 - keep) + frequencies * keep
