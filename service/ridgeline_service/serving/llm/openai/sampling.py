"""The fields that chat completions and completions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, field_validator

from ridgeline_backends.engine import Grammar, SamplingParams
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.generation import Terms, TextForm
from ridgeline_service.serving.llm.grammar import GrammarSpec
from ridgeline_service.serving.llm.model import TextModel, sampling
from ridgeline_service.serving.llm.openai.forms import (
    Choices,
    ResponseFormat,
    Schema,
    StructuredOutputs,
    read_form,
)
from ridgeline_service.serving.llm.openai.render import Spelling

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

    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None

    top_k: Annotated[int, Ge(-1)] | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: Annotated[int, Ge(0)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[int], Len(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    adapter: str | None = None
    priority: int | None = None
    timeout: Annotated[float, Gt(0)] | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "typical_p": (1,),
        "length_penalty": (1,),
        "use_beam_search": (False,),
        "prompt_logprobs": (),
        "truncate_prompt_tokens": (),
        "bad_words": ([],),
        "allowed_token_ids": (),
        "detokenize": (True,),
        "moderation": (),
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            "guided_decoding_backend",
            "guided_whitespace_pattern",
            "metadata",
            "prediction",
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
    def form(self) -> GrammarSpec | None:
        """What form the answer must have. Raises BadRequest."""
        guided = StructuredOutputs.model_construct(
            json_=self.guided_json,
            regex=self.guided_regex,
            choice=self.guided_choice,
            grammar=self.guided_grammar,
        )
        return read_form(self.response_format, self.structured_outputs, guided)

    def text_form(self, model: TextModel, shown: frozenset[int] = frozenset()) -> TextForm:
        """How tokens become text; ``shown`` are special tokens that the caller must see."""
        if self.skip_special_tokens is False:
            shown = model.tokenizer.special_ids
        return TextForm(tuple(self.stops), bool(self.include_stop_str_in_output), shown)

    @property
    def include_usage(self) -> bool:
        if self.stream_options is not None and not self.stream:
            raise BadRequest(
                "stream_options is only allowed when stream is true.", param="stream_options"
            )
        return bool(self.stream_options and self.stream_options.include_usage)

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
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_or(self.repetition_penalty, defaults.repetition_penalty),
            logit_bias=self._biases(model),
            prompt_logprobs=prompt_logprobs,
            grammar=grammar,
        )

    def _biases(self, model: TextModel) -> tuple[tuple[int, float], ...]:
        size = model.tokenizer.vocabulary_size
        for token in self.logit_bias or {}:
            if not (token.isascii() and token.isdigit() and int(token) < size):
                raise BadRequest(
                    f"logit_bias: {token[:40]!r} is no token; ids go from 0 to {size - 1}.",
                    param="logit_bias",
                    code="invalid_value",
                )
        return tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items())


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
