"""The kinds of operation a program is made of: what each makes of its inputs, in forms, FLOPs and
bytes. How a kind is computed is `execute`'s affair, how it is lowered `lowering`'s.

Imports no torch.
"""

from ridgeline_backends.neuron.operations.attention import (
    Attention,
    CachedAttention,
    KVWrite,
    Rope,
)
from ridgeline_backends.neuron.operations.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    Group,
    OwnPart,
    Permute,
    ReduceScatter,
)
from ridgeline_backends.neuron.operations.elementwise import (
    Binary,
    Cast,
    Gated,
    Softmax,
    Unary,
)
from ridgeline_backends.neuron.operations.experts import Combine, ExpertMatmul
from ridgeline_backends.neuron.operations.indexing import (
    Gather,
    Index,
    IndexWrite,
    Pad,
    Scan,
    Scatter,
    Sort,
    Store,
)
from ridgeline_backends.neuron.operations.layout import (
    Concat,
    Expand,
    Reshape,
    Slice,
    Split,
    Transpose,
)
from ridgeline_backends.neuron.operations.linear import BatchMatmul, Matmul
from ridgeline_backends.neuron.operations.lookup import ArgMax, Embedding, Reduce, Take, TopK
from ridgeline_backends.neuron.operations.norms import GroupNorm, LayerNorm, RMSNorm
from ridgeline_backends.neuron.operations.vision import Convolution, Pool, Upsample

KINDS = {
    kind.name: kind
    for kind in (
        AllGather,
        AllReduce,
        AllToAll,
        ArgMax,
        Attention,
        BatchMatmul,
        Binary,
        CachedAttention,
        Cast,
        Combine,
        Concat,
        Convolution,
        Embedding,
        Expand,
        ExpertMatmul,
        Gated,
        Gather,
        GroupNorm,
        Index,
        IndexWrite,
        KVWrite,
        LayerNorm,
        Matmul,
        OwnPart,
        Pad,
        Permute,
        Pool,
        Reduce,
        ReduceScatter,
        Reshape,
        RMSNorm,
        Rope,
        Scan,
        Scatter,
        Slice,
        Softmax,
        Sort,
        Split,
        Store,
        Take,
        TopK,
        Transpose,
        Unary,
        Upsample,
    )
}
"""Every kind by the name that `Operation.kind` gives."""

__all__ = [
    "KINDS",
    "AllGather",
    "AllReduce",
    "AllToAll",
    "ArgMax",
    "Attention",
    "BatchMatmul",
    "Binary",
    "CachedAttention",
    "Cast",
    "Collective",
    "Combine",
    "Concat",
    "Convolution",
    "Embedding",
    "Expand",
    "ExpertMatmul",
    "Gated",
    "Gather",
    "Group",
    "GroupNorm",
    "Index",
    "IndexWrite",
    "KVWrite",
    "LayerNorm",
    "Matmul",
    "OwnPart",
    "Pad",
    "Permute",
    "Pool",
    "RMSNorm",
    "Reduce",
    "ReduceScatter",
    "Reshape",
    "Rope",
    "Scan",
    "Scatter",
    "Slice",
    "Softmax",
    "Sort",
    "Split",
    "Store",
    "Take",
    "TopK",
    "Transpose",
    "Unary",
    "Upsample",
]
