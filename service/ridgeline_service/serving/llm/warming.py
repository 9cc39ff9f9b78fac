"""The first request of a model, which is nobody's."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from queue import SimpleQueue

from ridgeline_backends.encoding import TokenPair
from ridgeline_backends.engine import (
    Engine,
    EngineOutput,
    Failure,
    FinishReason,
    SamplingParams,
)
from ridgeline_backends.engine.data_parallel import DataParallelEngine
from ridgeline_service.serving.llm.errors import DAMAGED, LoadFailed
from ridgeline_service.serving.llm.model import EmbeddingModel, Model, TextModel

_TOKENS = 24
_TIMEOUT_S = 300.0


def warm_up(model: Model) -> None:
    """One small request through everything, so that the first client does not wait for it; of
    several copies of the model through each."""
    ids = model.tokenizer.encode("Hello, world. " * 8, add_special_tokens=True)
    ids = ids[: min(_TOKENS, model.limits.max_input_tokens)]
    if isinstance(model, TextModel):
        engine = model.engine
        for one in engine.engines if isinstance(engine, DataParallelEngine) else (engine,):
            _generate(one, ids or [0], model.limits.max_model_len)
    elif isinstance(model, EmbeddingModel):
        for vector in model.embedder.queue.warm_up(ids):
            _check(vector, "vector")
    else:
        _check(model.judge.warm_up(TokenPair(ids, [0] * len(ids))), "score")


def _check(numbers: Iterable[float], what: str) -> None:
    if not all(map(isfinite, numbers)):
        raise LoadFailed(f"The model's first {what} is not made of finite numbers.", hint=DAMAGED)


def _generate(engine: Engine, prompt: list[int], longest: int) -> None:
    outputs: SimpleQueue[EngineOutput] = SimpleQueue()
    room = min(4, longest - len(prompt))
    params = SamplingParams(max_tokens=room, temperature=0.0, ignore_eos=True)
    engine.submit("warm-up", prompt, params, outputs.put)
    while True:
        output = outputs.get(timeout=_TIMEOUT_S)
        if output.failure is Failure.LOGITS:
            raise LoadFailed("The model's first logits are not finite numbers.", hint=DAMAGED)
        if output.finish_reason is FinishReason.ERROR:
            raise LoadFailed(f"The first generation failed: {output.error}")
        if output.finish_reason is not None:
            return
