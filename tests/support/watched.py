"""A known clock, and what an engine says of a sequence and of itself."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from ridgeline_backends.engine import EngineOutput, EngineStats, FinishReason, SamplingParams
from ridgeline_backends.engine.api import Times
from ridgeline_service.serving.llm.metrics import ReplicaMetrics


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


PARAMS = SamplingParams(max_tokens=8)
STATS = EngineStats(
    running=2, waiting=3, free_blocks=6, total_blocks=8, steps=4, preemptions=1, prefix_queries=10,
    prefix_hits=4, drafts=2, draft_tokens=6, accepted_tokens=5, device_seconds=9.0,
    busy_seconds=10.0,
)  # fmt: skip


def output(
    *tokens: int, finish: FinishReason | None = None, times: Times | None = None
) -> EngineOutput:
    return EngineOutput(sequence_id="s", token_ids=tokens, finish_reason=finish, times=times)


def samples(replica: ReplicaMetrics) -> dict[str, float]:
    """Every sample without our constant labels; buckets left out."""
    found = {}
    for family in text_string_to_metric_families(replica.exposition().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if "le" not in labels and labels.pop("engine", "0") == "0":
                assert labels.pop("model_name", "smol") == "smol"
                found[":".join([sample.name, *labels.values()])] = sample.value
    return found
