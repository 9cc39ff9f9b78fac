"""Continuous batching, free of torch: what a model server imports."""

from ridgeline_backends.engine.api import (
    MAX_LOGPROBS,
    NO_TOKEN,
    Constraint,
    Engine,
    EngineOutput,
    EngineStats,
    Failure,
    FinishReason,
    Grammar,
    SamplingParams,
    Sink,
    TokenLogprobs,
)
from ridgeline_backends.engine.llm_engine import LLMEngine
from ridgeline_backends.errors import (
    DuplicateSequence,
    EngineError,
    EngineStopped,
    InvalidSampling,
    PromptTooLong,
    QueueFull,
)

__all__ = [
    "MAX_LOGPROBS",
    "NO_TOKEN",
    "Constraint",
    "DuplicateSequence",
    "Engine",
    "EngineError",
    "EngineOutput",
    "EngineStats",
    "EngineStopped",
    "Failure",
    "FinishReason",
    "Grammar",
    "InvalidSampling",
    "LLMEngine",
    "PromptTooLong",
    "QueueFull",
    "SamplingParams",
    "Sink",
    "TokenLogprobs",
]
