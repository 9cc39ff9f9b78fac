"""The fields that chat completions and completions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, field_validator

from ridgeline_backends.engine import SamplingParams
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.model import TextModel, sampling

MAX_N = 128
"""Sequences of one prompt, as in OpenAI's API."""

MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_TEMPERATURE = 2

Stop = Annotated[list[str], Len(max_length=MAX_STOPS)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    include_usage: bool | None = None


class SamplingBody(Body):
    """Fields of OpenAI's own, then the extra ones that LLM servers understand by custom."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: Annotated[int, Ge(1), Le(MAX_N)] | None = None
    seed: int | None = None
    stop: str | Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Ge(1)] | None = None

    top_k: Annotated[int, Ge(-1)] | None = None
    min_tokens: Annotated[int, Ge(0)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[int], Len(max_length=64)] | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "repetition_penalty": (1,),
        "logit_bias": ({},),
        "min_p": (0,),
        "typical_p": (1,),
        "length_penalty": (1,),
        "use_beam_search": (False,),
        "response_format": ({"type": "text"},),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
        "structured_outputs": (),
        "skip_special_tokens": (True,),
        "include_stop_str_in_output": (False,),
        "prompt_logprobs": (),
        "truncate_prompt_tokens": (),
        "bad_words": ([],),
        "allowed_token_ids": (),
        "moderation": (),
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            "metadata",
            "prediction",
            "priority",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "request_id",
            "safety_identifier",
            "service_tier",
            "spaces_between_special_tokens",
            "store",
            "user",
        }
    )

    @field_validator("temperature")
    @classmethod
    def _as_openai(cls, value: float | None) -> float | None:
        if value is not None and not 0 <= value <= MAX_TEMPERATURE:
            raise ValueError(f"must be from 0 to {MAX_TEMPERATURE}, not {value:g}")
        return value

    @property
    def stops(self) -> list[str]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if "" in given:
            raise BadRequest("stop: a stop string cannot be empty.", param="stop")
        return given

    @property
    def include_usage(self) -> bool:
        if self.stream_options is not None and not self.stream:
            raise BadRequest(
                "stream_options is only allowed when stream is true.", param="stream_options"
            )
        return bool(self.stream_options and self.stream_options.include_usage)

    def params(
        self,
        model: TextModel,
        prompt: Sequence[int],
        *,
        max_tokens: int | None,
        logprobs: int | None,
        max_tokens_name: str = "max_tokens",
    ) -> SamplingParams:
        """For one prompt; what the request leaves open comes from generation_config.json."""
        defaults = model.defaults
        room = model.room(prompt, max_tokens)
        return sampling(
            {"max_tokens": max_tokens_name, "stop_token_ids": "stop_token_ids"},
            max_tokens=room,
            temperature=_or(self.temperature, defaults.temperature),
            top_k=max(0, int(_or(self.top_k, defaults.top_k))),
            top_p=_or(self.top_p, defaults.top_p),
            seed=self.seed,
            stop_token_ids=model.stop_ids(
                self.stop_token_ids or (), ignore_eos=bool(self.ignore_eos)
            ),
            logprobs=logprobs,
            ignore_eos=bool(self.ignore_eos),
            min_tokens=self.min_tokens or 0,
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
