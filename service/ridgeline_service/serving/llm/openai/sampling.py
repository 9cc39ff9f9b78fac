"""The fields that chat completions and completions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

from ridgeline_backends.engine import Grammar, SamplingParams
from ridgeline_service.serving.llm import unsupported
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.generation import Terms, TextForm
from ridgeline_service.serving.llm.model import Keep, TextModel, sampling
from ridgeline_service.serving.llm.openai.forms import FormBody
from ridgeline_service.serving.llm.openai.render import Spelling, UsageTold

MAX_N = 128
"""Sequences of one prompt, as in OpenAI's API."""

MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_TEMPERATURE = 2

Stop = Annotated[list[str], Len(max_length=MAX_STOPS)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


def _some(count: int) -> int:
    if count < -1 or count == 0:
        raise ValueError("must be at least 1, or -1 for as many as the model takes")
    return count


TruncateTo = Annotated[int, AfterValidator(_some)]
"""Tokens that are kept of a prompt; -1: as many as the model takes."""


class SamplingBody(FormBody):
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

    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    top_k: Annotated[int, Ge(-1)] | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: Annotated[int, Ge(0)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[int], Len(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    truncate_prompt_tokens: TruncateTo | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    adapter: str | None = None
    priority: int | None = None
    timeout: Annotated[float, Gt(0)] | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **unsupported.NEUTRAL,
        "moderation": (),
    }
    instead: ClassVar[Mapping[str, str]] = {
        "eos_token_id": "stop_token_ids",
        "max_length": "max_tokens",
        "min_length": "min_tokens",
        "num_return_sequences": "n",
        "stop_strings": "stop",
    }
    harmless: ClassVar[frozenset[str]] = unsupported.HARMLESS | frozenset(
        {
            "guided_decoding_backend",
            "guided_whitespace_pattern",
            "metadata",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
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

    def text_form(self, model: TextModel, shown: frozenset[int] = frozenset()) -> TextForm:
        """How tokens become text; ``shown`` are special tokens that the caller must see."""
        if self.skip_special_tokens is False:
            shown = model.tokenizer.special_ids
        return TextForm(tuple(self.stops), bool(self.include_stop_str_in_output), shown)

    @property
    def usage_told(self) -> UsageTold:
        """`continuous_usage_stats` as in vLLM: it says how, and `include_usage` whether."""
        options = self.stream_options
        if options is not None and not self.stream:
            raise BadRequest(
                "stream_options is only allowed when stream is true.", param="stream_options"
            )
        if options is None or not options.include_usage:
            return UsageTold.NEVER
        return UsageTold.THROUGHOUT if options.continuous_usage_stats else UsageTold.LAST

    @property
    def keep(self) -> Keep | None:
        """What is kept of a prompt that is longer than asked for: its end, as in vLLM."""
        asked = self.truncate_prompt_tokens
        return None if asked is None else Keep(None if asked < 0 else asked, end=True)

    def spelling(self, model: TextModel) -> Spelling:
        return Spelling(model.tokenizer, by_id=bool(self.return_tokens_as_token_ids))

    def terms(self, model: TextModel) -> Terms:
        """`priority` as in vLLM, the lower the sooner; `timeout` in seconds. `model` may name a
        LoRA adapter, and so does `adapter`, whatever `model` says."""
        return Terms(
            priority=self.priority or 0,
            timeout_s=self.timeout,
            adapter=self.adapter or model.adapter(self.model),
        )

    def params(
        self,
        model: TextModel,
        prompt: Sequence[int],
        *,
        max_tokens: int | None,
        logprobs: int | None,
        prompt_logprobs: int | None = None,
        grammar: Grammar | None = None,
        max_tokens_name: str = "max_tokens",
    ) -> SamplingParams:
        """For one prompt; what the request leaves open comes from generation_config.json."""
        defaults = model.defaults
        room = model.room(prompt, max_tokens, self.min_tokens, "min_tokens")
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
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_or(self.repetition_penalty, defaults.repetition_penalty),
            logit_bias=model.biases(self.logit_bias or {}, "logit_bias"),
            prompt_logprobs=prompt_logprobs,
            grammar=grammar,
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
