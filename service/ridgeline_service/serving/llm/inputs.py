"""``{"inputs", "parameters", "stream"}``: the schema of LMI (DJL Serving) and of TGI.

Both take nearly the same request. LMI answers an object and streams JSON lines; TGI answers a list
and streams server-sent events, with other names in the details. A list of inputs answers a list in
both. Greedy unless ``do_sample`` is true or, when it is absent, a sampling parameter is given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Len
from pydantic import field_validator

from ridgeline_backends.engine import SamplingParams
from ridgeline_service.serving.llm.answers import (
    EVENT_STREAM,
    JSON_LINES,
    Answer,
    StreamAnswer,
    event,
    json_answer,
    json_line,
)
from ridgeline_service.serving.llm.errors import BadRequest, ErrorStyle
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.generation import (
    Completed,
    Finish,
    Generation,
    SequencePlan,
    Token,
)
from ridgeline_service.serving.llm.model import TextModel, sampling

DJL_DEFAULT_NEW_TOKENS = 30
TGI_DEFAULT_NEW_TOKENS = 100
"""What each server generates when ``max_new_tokens`` is absent."""

MAX_INPUTS = 256

Stops = Annotated[list[str], Len(max_length=16)]


class Parameters(Body):
    max_new_tokens: Annotated[int, Ge(1)] | None = None
    min_new_tokens: Annotated[int, Ge(0)] | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: Annotated[int, Ge(-1)] | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | Stops | None = None
    stop_sequences: Stops | None = None
    stop_token_ids: Annotated[list[int], Len(max_length=64)] | None = None
    ignore_eos_token: bool | None = None
    return_full_text: bool | None = None
    details: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "adapter_id": ("",),
        "best_of": (1,),
        "decoder_input_details": (False,),
        "early_stopping": (False,),
        "frequency_penalty": (0,),
        "grammar": (),
        "include_stop_str_in_output": (False,),
        "length_penalty": (1,),
        "logprobs": (),
        "min_p": (0,),
        "n": (1,),
        "num_beams": (1,),
        "presence_penalty": (0,),
        "prompt_logprobs": (),
        "repetition_penalty": (1,),
        "skip_special_tokens": (True,),
        "top_n_tokens": (0,),
        "truncate": (),
        "typical_p": (1,),
        "watermark": (False,),
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"spaces_between_special_tokens", "num_return_sequences", "use_cache", "stream"}
    )

    @field_validator("temperature")
    @classmethod
    def _not_negative(cls, value: float | None) -> float | None:
        # 0 is greedy, as LMI has it; TGI refuses it, which helps nobody.
        if value is not None and value < 0:
            raise ValueError(f"must be 0 (greedy) or more, not {value:g}")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        single = [self.stop] if isinstance(self.stop, str) else self.stop or []
        given = (*single, *(self.stop_sequences or ()))
        if "" in given:
            raise BadRequest("stop: a stop string cannot be empty.", param="parameters.stop")
        return given

    @property
    def greedy(self) -> bool:
        if self.do_sample is not None:
            return not self.do_sample
        return self.temperature is None and self.top_k is None and self.top_p is None


class InputsBody(Body):
    inputs: str | Annotated[list[str], Len(min_length=1, max_length=MAX_INPUTS)]
    parameters: dict[str, object] | None = None
    stream: bool | None = None

    harmless: ClassVar[frozenset[str]] = frozenset({"options", "model"})


@dataclass(frozen=True, slots=True)
class _Request:
    """What rendering needs to know of a request."""

    tgi: bool
    text: str
    prompt_tokens: int
    parameters: Parameters

    @property
    def prefix(self) -> str:
        return self.text if self.parameters.return_full_text else ""


async def generate(
    model: TextModel, body: Mapping[str, object], *, tgi: bool
) -> Answer | StreamAnswer:
    """Answer one request. Raises BadRequest and the engine's refusals."""
    request = InputsBody.read(body)
    parameters = Parameters.read(request.parameters or {}, under="parameters.")
    batch = not isinstance(request.inputs, str)
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    if batch and request.stream:
        raise BadRequest("A list of inputs cannot be streamed.", param="stream")
    with_logprobs = bool(request.stream or parameters.details)
    stops = parameters.stops
    plans, asked = [], []
    prompts = await model.encode_all(texts, add_special_tokens=True, param="inputs")
    for text, prompt in zip(texts, prompts, strict=True):
        params = _params(model, parameters, prompt, with_logprobs=with_logprobs, tgi=tgi)
        plans.append(SequencePlan(tuple(prompt), params, stops))
        asked.append(_Request(tgi, text, len(prompt), parameters))
    generation = model.start(plans)
    if request.stream:
        frame: Callable[[object], bytes] = event if tgi else json_line
        render = _tgi_events if tgi else _djl_lines
        return StreamAnswer(
            render(model, generation, asked[0]),
            EVENT_STREAM if tgi else JSON_LINES,
            ErrorStyle.TGI if tgi else ErrorStyle.DJL,
            frame,
            generation.cancel,
        )
    with generation:
        done = await generation.completed()
    made = [
        _result(model, one, sequence.text, sequence)
        for one, sequence in zip(asked, done, strict=True)
    ]
    return json_answer(made if batch or tgi else made[0])


def _params(
    model: TextModel,
    parameters: Parameters,
    prompt: Sequence[int],
    *,
    with_logprobs: bool,
    tgi: bool,
) -> SamplingParams:
    wanted = parameters.max_new_tokens
    if wanted is None:
        wanted = TGI_DEFAULT_NEW_TOKENS if tgi else DJL_DEFAULT_NEW_TOKENS
    greedy = parameters.greedy
    ignore_eos = bool(parameters.ignore_eos_token)
    names = {
        "max_tokens": "parameters.max_new_tokens",
        "min_tokens": "parameters.min_new_tokens",
        **{name: f"parameters.{name}" for name in ("temperature", "top_k", "top_p", "seed")},
    }
    return sampling(
        names,
        max_tokens=model.room(prompt, wanted),
        temperature=0.0 if greedy else _or(parameters.temperature, 1.0),
        top_k=0 if greedy else max(0, parameters.top_k or 0),
        top_p=1.0 if greedy else _or(parameters.top_p, 1.0),
        seed=parameters.seed,
        stop_token_ids=model.stop_ids(parameters.stop_token_ids or (), ignore_eos=ignore_eos),
        logprobs=0 if with_logprobs else None,
        ignore_eos=ignore_eos,
        min_tokens=parameters.min_new_tokens or 0,
    )


def _result(
    model: TextModel, request: _Request, text: str, sequence: Completed
) -> dict[str, object]:
    made: dict[str, object] = {"generated_text": request.prefix + text}
    if request.parameters.details:
        render = _tgi_token if request.tgi else _djl_token
        tokens = [render(model, token) for token in sequence.tokens]
        made["details"] = {**_details(request, sequence.finish, whole=True), "tokens": tokens}
    return made


def _details(request: _Request, finish: Finish, *, whole: bool) -> dict[str, object]:
    details: dict[str, object] = {
        "finish_reason": finish.cause.value,
        "generated_tokens": finish.usage.completion_tokens,
    }
    if not request.tgi:
        return {**details, "inputs": request.text}
    details["seed"] = None if request.parameters.greedy else request.parameters.seed
    if whole:
        return {**details, "prefill": []}
    return {**details, "input_length": request.prompt_tokens}


async def _djl_lines(
    model: TextModel, generation: Generation, request: _Request
) -> AsyncIterator[bytes]:
    whole: list[str] = []
    async for news in generation.chunks():
        whole.append(news.text)
        for place, token in enumerate(news.tokens):
            line: dict[str, object] = {"token": _djl_token(model, token)}
            if news.finish is not None and place == len(news.tokens) - 1:
                line["generated_text"] = request.prefix + "".join(whole)
                line["details"] = _details(request, news.finish, whole=False)
            yield json_line(line)


async def _tgi_events(
    model: TextModel, generation: Generation, request: _Request
) -> AsyncIterator[bytes]:
    whole: list[str] = []
    count = 0
    async for news in generation.chunks():
        whole.append(news.text)
        for place, token in enumerate(news.tokens):
            count += 1
            last = news.finish is not None and place == len(news.tokens) - 1
            finish = news.finish if last else None
            yield event(
                {
                    "index": count,
                    "token": _tgi_token(model, token),
                    "generated_text": request.prefix + "".join(whole) if finish else None,
                    "details": _details(request, finish, whole=False) if finish else None,
                }
            )


def _djl_token(model: TextModel, token: Token) -> dict[str, object]:
    return {
        "id": token.token_id,
        "text": token.text,
        "log_prob": token.logprobs.logprob if token.logprobs else None,
    }


def _tgi_token(model: TextModel, token: Token) -> dict[str, object]:
    """TGI shows the special token that ended a text, and marks it."""
    piece = model.tokenizer.piece(token.token_id)
    return {
        "id": token.token_id,
        "text": piece.data.decode(errors="replace") if token.hidden else token.text,
        "logprob": token.logprobs.logprob if token.logprobs else None,
        "special": piece.special,
    }


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
