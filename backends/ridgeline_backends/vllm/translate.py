"""Between our types and vLLM's: sampling parameters on the way in, outputs on the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ridgeline_backends.engine.api import FinishReason, SamplingParams, TokenLogprobs
from ridgeline_backends.errors import InvalidSampling

if TYPE_CHECKING:
    from vllm import SamplingParams as VllmSamplingParams

_FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


def vllm_params(params: SamplingParams, eos: frozenset[int], max_tokens: int) -> VllmSamplingParams:
    """Raises `InvalidSampling` for a grammar: ours is a mask for each token, which vLLM's engine
    process cannot be handed."""
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.sampling_params import RequestOutputKind

    if params.grammar is not None:
        raise InvalidSampling("grammar", "a form", "left out: the vLLM engine follows none")
    stops = params.stop_token_ids | (frozenset() if params.ignore_eos else eos)
    return VllmSamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        seed=params.seed,
        max_tokens=max_tokens,
        min_tokens=params.min_tokens,
        stop_token_ids=sorted(stops),
        # Those that count are among the stops already.
        ignore_eos=True,
        logprobs=params.logprobs,
        prompt_logprobs=params.prompt_logprobs,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        logit_bias=dict(params.logit_bias) or None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def finish_reason(name: str | None) -> FinishReason | None:
    """None while the sequence goes on."""
    return None if name is None else _FINISHES.get(name, FinishReason.ERROR)


def token_logprobs(
    tokens: Sequence[int], entries: Sequence[Mapping[int, Any] | None], count: int
) -> tuple[TokenLogprobs, ...]:
    """One for each token that has an entry, with the `count` likeliest: vLLM gives those, and the
    token itself, in one mapping."""
    found = []
    for token, entry in zip(tokens, entries, strict=True):
        if entry is None:
            continue
        ranked = sorted(entry.items(), key=lambda item: -item[1].logprob)[:count]
        top = tuple((other, float(value.logprob)) for other, value in ranked)
        found.append(TokenLogprobs(token, float(entry[token].logprob), top))
    return tuple(found)
