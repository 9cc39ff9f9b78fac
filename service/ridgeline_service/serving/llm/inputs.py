"""``{"inputs", "parameters", "stream"}``: the schema of LMI (DJL Serving) and of TGI.

Both take nearly the same request. LMI answers an object and streams JSON lines; TGI answers a list
and streams server-sent events, with other names in the details. A list of inputs answers a list in
both. When an answer is sampled they decide differently, see `Parameters.sampled`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from ridgeline_backends.engine import Grammar, SamplingParams, TokenLogprobs
from ridgeline_service.serving.llm.answers import (
    EVENT_STREAM,
    JSON_LINES,
    Answer,
    StreamAnswer,
    event,
    json_answer,
    json_line,
    written_logprob,
)
from ridgeline_service.serving.llm.errors import BadRequest, ErrorStyle
from ridgeline_service.serving.llm.generation import (
    Completed,
    Finish,
    Generation,
    SequencePlan,
    TextForm,
    Token,
)
from ridgeline_service.serving.llm.model import Keep, TextModel, sampling
from ridgeline_service.serving.llm.parameters import SAME_NAMES, InputsBody, Parameters

DJL_DEFAULT_NEW_TOKENS = 30
TGI_DEFAULT_NEW_TOKENS = 100
"""What each server generates when ``max_new_tokens`` is absent."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What rendering needs to know of a request."""

    tgi: bool
    text: str
    prompt: tuple[int, ...]
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
    stream = bool(request.stream or parameters.stream)
    if batch and stream:
        raise BadRequest("A list of inputs cannot be streamed.", param="stream")
    if parameters.decoder_input_details and (stream or not parameters.details):
        raise BadRequest(
            "parameters.decoder_input_details needs details, and a whole answer (no stream).",
            param="parameters.decoder_input_details",
        )
    with_logprobs = stream or bool(parameters.details)
    grammar = await model.grammar(parameters.form)
    keep_stop = parameters.include_stop_str_in_output
    form = TextForm(
        parameters.stops,
        # TGI's generated_text ends with the stop sequence, LMI's before it.
        tgi if keep_stop is None else keep_stop,
        model.tokenizer.special_ids if parameters.skip_special_tokens is False else frozenset(),
    )
    plans, asked = [], []
    keep = None if parameters.truncate is None else Keep(parameters.truncate, end=True)
    prompts = await model.encode_all(texts, add_special_tokens=True, param="inputs", keep=keep)
    for text, prompt, terms in zip(texts, prompts, request.terms(parameters), strict=True):
        params = _params(model, parameters, prompt, grammar, with_logprobs=with_logprobs, tgi=tgi)
        plans.append(SequencePlan(tuple(prompt), params, form, terms))
        asked.append(_Request(tgi, text, tuple(prompt), parameters))
    generation = model.start(plans)
    if stream:
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
    grammar: Grammar | None,
    *,
    with_logprobs: bool,
    tgi: bool,
) -> SamplingParams:
    wanted = parameters.max_new_tokens
    if wanted is None:
        wanted = TGI_DEFAULT_NEW_TOKENS if tgi else DJL_DEFAULT_NEW_TOKENS
    greedy = not parameters.sampled(tgi=tgi)
    names = {
        "max_tokens": "parameters.max_new_tokens",
        "min_tokens": "parameters.min_new_tokens",
        **{name: f"parameters.{name}" for name in SAME_NAMES},
    }
    return sampling(
        names,
        max_tokens=model.room(prompt, wanted, parameters.min_new_tokens, names["min_tokens"]),
        temperature=0.0 if greedy else _or(parameters.temperature, 1.0),
        top_k=0 if greedy else max(0, parameters.top_k or 0),
        top_p=1.0 if greedy else _or(parameters.top_p, 1.0),
        seed=parameters.seed,
        stop_token_ids=model.stop_ids(
            parameters.stop_ids, ignore_eos=parameters.ignores_models_eos
        ),
        logprobs=(parameters.top_n_tokens or 0) if with_logprobs else None,
        ignore_eos=parameters.ignores_models_eos,
        min_tokens=parameters.min_new_tokens or 0,
        min_p=0.0 if greedy else _or(parameters.min_p, 0.0),
        presence_penalty=_or(parameters.presence_penalty, 0.0),
        frequency_penalty=_or(parameters.frequency_penalty, 0.0),
        repetition_penalty=_or(parameters.repetition_penalty, 1.0),
        logit_bias=model.biases(parameters.logit_bias or {}, "parameters.logit_bias"),
        prompt_logprobs=0 if parameters.decoder_input_details else None,
        grammar=grammar,
    )


def _result(
    model: TextModel, request: _Request, text: str, sequence: Completed
) -> dict[str, object]:
    made: dict[str, object] = {"generated_text": request.prefix + text}
    if request.parameters.details:
        render = _tgi_token if request.tgi else _djl_token
        tokens = [render(model, token) for token in sequence.tokens]
        details = {**_details(request, sequence.finish, whole=True), "tokens": tokens}
        if request.parameters.decoder_input_details:
            details["prefill"] = _prefill(model, request, sequence.prompt_logprobs or ())
        if request.parameters.top_n_tokens:
            details["top_tokens"] = [_top(model, request, token) for token in sequence.tokens]
        made["details"] = details
    return made


def _prefill(
    model: TextModel, request: _Request, scores: Sequence[TokenLogprobs]
) -> list[dict[str, object]]:
    """The prompt's tokens; nothing comes before the first, so that has no probability."""
    name = "logprob" if request.tgi else "log_prob"
    values = [None, *(written_logprob(score.logprob) for score in scores)]
    return [
        {"id": token_id, "text": _spelled(model, token_id), name: value}
        for token_id, value in zip(request.prompt, values, strict=True)
    ]


def _top(model: TextModel, request: _Request, token: Token) -> list[dict[str, object]]:
    """The likeliest tokens where this one was chosen."""
    name = "logprob" if request.tgi else "log_prob"
    found = token.logprobs.top if token.logprobs else ()
    return [
        {
            "id": token_id,
            "text": _spelled(model, token_id),
            name: written_logprob(value),
            "special": model.tokenizer.piece(token_id).special,
        }
        for token_id, value in found
    ]


def _details(request: _Request, finish: Finish, *, whole: bool) -> dict[str, object]:
    details: dict[str, object] = {
        "finish_reason": finish.cause.value,
        "generated_tokens": finish.usage.completion_tokens,
    }
    if not request.tgi:
        return {**details, "inputs": request.text}
    details["seed"] = request.parameters.seed if request.parameters.sampled(tgi=True) else None
    if whole:
        return {**details, "prefill": []}
    return {**details, "input_length": len(request.prompt)}


async def _djl_lines(
    model: TextModel, generation: Generation, request: _Request
) -> AsyncIterator[bytes]:
    whole: list[str] = []
    async for news in generation.chunks():
        whole.append(news.text)
        for place, token in enumerate(news.tokens):
            line: dict[str, object] = {"token": _djl_token(model, token)}
            if request.parameters.top_n_tokens:
                line["top_tokens"] = _top(model, request, token)
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
            top = _top(model, request, token) if request.parameters.top_n_tokens else None
            yield event(
                {
                    "index": count,
                    "token": _tgi_token(model, token),
                    **({} if top is None else {"top_tokens": top}),
                    "generated_text": request.prefix + "".join(whole) if finish else None,
                    "details": _details(request, finish, whole=False) if finish else None,
                }
            )


def _djl_token(model: TextModel, token: Token) -> dict[str, object]:
    return {
        "id": token.token_id,
        "text": token.text,
        "log_prob": written_logprob(token.logprobs.logprob) if token.logprobs else None,
    }


def _tgi_token(model: TextModel, token: Token) -> dict[str, object]:
    """TGI shows the special token that ended a text, and marks it."""
    piece = model.tokenizer.piece(token.token_id)
    return {
        "id": token.token_id,
        "text": _spelled(model, token.token_id) if token.hidden else token.text,
        "logprob": written_logprob(token.logprobs.logprob) if token.logprobs else None,
        "special": piece.special,
    }


def _spelled(model: TextModel, token_id: int) -> str:
    return model.tokenizer.piece(token_id).data.decode(errors="replace")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
