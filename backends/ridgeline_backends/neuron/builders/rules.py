"""What libraries do alike or not: inputs of every builder, by library and version.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ridgeline_backends.neuron.operations.attention import AttentionKernel
from ridgeline_backends.neuron.partition import KVRule


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRules:
    """`kv`: what becomes of KV heads. `embedding`: how the table is cut: by columns ("hidden", the
    parts gathered), by rows ("vocabulary", the parts summed), or not ("replicated").
    `head_gathered`: the logits of all cores are joined on the device. `prefill_kernel`: how the
    scores of a prompt are computed where the settings do not name a kernel. `expert_kernel`: blocks
    of experts are computed by a kernel, which fetches tokens from memory and adds to results there;
    without one by the compiler, which keeps both in SBUF or writes all results anew for each block.
    `batch_for_length`: the mixture of experts takes the first dimension, the batch, for the length
    by which it tells a decode step from a prompt.
    """

    library: str
    kv: KVRule
    embedding: Literal["hidden", "vocabulary", "replicated"]
    head_gathered: bool
    prefill_kernel: AttentionKernel
    expert_kernel: bool = True
    batch_for_length: bool = False


NXDI = LibraryRules(
    library="neuronx-distributed-inference",
    kv=KVRule.REPLICATE_TO_TP_DEGREE,
    embedding="hidden",
    head_gathered=False,
    prefill_kernel="flash",
)
OPTIMUM_NEURON = replace(NXDI, library="optimum-neuron", expert_kernel=False, batch_for_length=True)
NXD = (NXDI, OPTIMUM_NEURON)
"""Libraries of one family: they differ in experts alone. MoE (neuronx_distributed/modules/moe,
model.py) has sequence_dimension 0 by default; NxD Inference gives it 1, optimum-neuron nothing."""

TRANSFORMERS_NEURONX = LibraryRules(
    library="transformers-neuronx",
    kv=KVRule.REPLICATE_TO_TP_DEGREE,
    embedding="replicated",
    head_gathered=True,
    prefill_kernel="plain",
)
TRANSFORMERS_NEURONX_2_18 = LibraryRules(
    library="transformers-neuronx (SDK 2.18)",
    kv=KVRule.REPLICATED_HEADS,
    embedding="replicated",
    head_gathered=True,
    prefill_kernel="plain",
)
