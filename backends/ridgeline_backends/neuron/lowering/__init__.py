"""Operation -> instructions of one core: one registered rule per kind of operation.

A rule is a pure function of the operation's attributes, the forms and kinds of its buffers and the
chip, so its result is remembered: a repeated layer is lowered once, and so is the same matrix in
two programs. Imports no torch.
"""

from ridgeline_backends.neuron.lowering import (
    attention,
    collectives,
    experts,
    indexing,
    lookup,
    matrix,
    vector,
    vision,
)
from ridgeline_backends.neuron.lowering.rules import RULES, lower, resident_bytes

for _module in (attention, collectives, experts, indexing, lookup, matrix, vector, vision):
    RULES.update(_module.RULES)

__all__ = ["RULES", "lower", "resident_bytes"]
