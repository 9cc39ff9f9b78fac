"""The part of a decoder's weights that one process of a tensor-parallel model holds.

Matrices that heads or intermediate rows come out of are split by their rows, those that they go
into by their columns, whose products are then summed over the processes; the head is split by the
vocabulary. (Megatron-LM, arXiv 1909.08053.) Knows neither processes nor devices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import LayerWeights


def shard_layer(layer: LayerWeights, config: DecoderConfig, rank: int, degree: int) -> LayerWeights:
    """Part `rank` of `degree`. `config` is the whole model's; both numbers divide its KV heads and
    its intermediate rows. `o_bias` is whole, for it is added to the sum."""
    kv = config.kv_heads * config.head_dim
    parts = [config.heads * config.head_dim, kv, kv]
    halves = [config.intermediate, config.intermediate]

    def rows(matrix: Tensor, sizes: list[int]) -> Tensor:
        """Of every part of a fused matrix, the own rows."""
        return torch.cat([part.chunk(degree)[rank] for part in torch.split(matrix, sizes)])

    return LayerWeights(
        attention_norm=layer.attention_norm,
        qkv=rows(layer.qkv, parts),
        qkv_bias=None if layer.qkv_bias is None else rows(layer.qkv_bias, parts),
        q_norm=layer.q_norm,
        k_norm=layer.k_norm,
        o=layer.o.chunk(degree, 1)[rank],
        o_bias=layer.o_bias,
        post_attention_norm=layer.post_attention_norm,
        mlp_norm=layer.mlp_norm,
        gate_up=rows(layer.gate_up, halves),
        down=layer.down.chunk(degree, 1)[rank],
        post_mlp_norm=layer.post_mlp_norm,
    )


def shard_head(head: Tensor, rank: int, degree: int) -> Tensor:
    """The own rows, as many for every rank: the last ones are filled up with zeros."""
    size = -(-head.shape[0] // degree)
    own = head[rank * size : (rank + 1) * size]
    return torch.nn.functional.pad(own, (0, 0, 0, size - own.shape[0]))
