"""How heads, columns and tables are cut over the cores of a tensor-parallel group.

Libraries differ in what they do with KV heads that the degree does not divide, and versions of one
library do: the rule is an input. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KVRule(StrEnum):
    """What becomes of KV heads (`GQA` in the libraries).

    REPLICATED_HEADS: one for every query head, as transformers-neuronx of SDK 2.18 did.
    REPLICATE_TO_TP_DEGREE: copies until every core has one; where the degree and the number of KV
    heads do not divide each other, CONVERT_TO_MHA. CONVERT_TO_MHA: one for every query head.
    """

    REPLICATED_HEADS = "REPLICATED_HEADS"
    REPLICATE_TO_TP_DEGREE = "REPLICATE_TO_TP_DEGREE"
    CONVERT_TO_MHA = "CONVERT_TO_MHA"


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """The heads of every core: `queries` and `keys` per core, None for a head that only fills up.

    Query i of a core looks at its key i // (queries per core // keys per core). `rule` is the one
    that was followed in the end.
    """

    rule: KVRule
    queries: tuple[tuple[int | None, ...], ...]
    keys: tuple[tuple[int | None, ...], ...]

    @property
    def queries_per_core(self) -> int:
        return len(self.queries[0])

    @property
    def keys_per_core(self) -> int:
        return len(self.keys[0])


def plan_heads(heads: int, kv_heads: int, degree: int, rule: KVRule) -> HeadPlan:
    """Cut `heads` query heads, which share `kv_heads` KV heads in equal groups."""
    divides = degree % kv_heads == 0 or kv_heads % degree == 0
    if rule is KVRule.REPLICATE_TO_TP_DEGREE and divides:
        copies = max(1, degree // kv_heads)
        # Each copy serves its part of the group's queries, the last one perhaps fewer.
        group = heads // kv_heads
        share = -(-group // copies)
        queries = [
            head * group + place if place < group else None
            for head in range(kv_heads)
            for place in range(share * copies)
        ]
        keys: list[int | None] = [head for head in range(kv_heads) for _ in range(copies)]
        return HeadPlan(rule, _cut(queries, degree), _cut(keys, degree))
    if rule is KVRule.REPLICATE_TO_TP_DEGREE:
        rule = KVRule.CONVERT_TO_MHA
    padded = round_up(heads, degree)
    queries = [head if head < heads else None for head in range(padded)]
    group = heads // kv_heads
    keys = [None if head is None else head // group for head in queries]
    return HeadPlan(rule, _cut(queries, degree), _cut(keys, degree))


def round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _cut(items: list[int | None], parts: int) -> tuple[tuple[int | None, ...], ...]:
    size = len(items) // parts
    return tuple(tuple(items[part * size : (part + 1) * size]) for part in range(parts))
