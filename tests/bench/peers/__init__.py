"""The servers that are compared, ours first."""

from peers.base import Peer
from peers.llama_cpp import LlamaCpp
from peers.openvino import OpenVino
from peers.ridgeline import BF16, BF16_LOOKUP, INT8, INT8_LOOKUP
from peers.transformers import Transformers
from peers.vllm import Vllm

PEERS: tuple[Peer, ...] = (
    BF16,
    INT8,
    BF16_LOOKUP,
    INT8_LOOKUP,
    LlamaCpp("bf16"),
    LlamaCpp("q8_0"),
    OpenVino("f16"),
    OpenVino("q8_0"),
    Vllm(),
    Transformers(),
)
