"""The bodies of LMI and TGI, read and checked: what may be asked for, under which names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, field_validator

from ridgeline_backends.engine import MAX_LOGPROBS
from ridgeline_service.serving.llm import unsupported
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.generation import Terms
from ridgeline_service.serving.llm.grammar import Form, GrammarSpec
from ridgeline_service.serving.llm.openai.forms import FormBody

MAX_INPUTS = 256

_GRAMMAR = "parameters.grammar"

SAME_NAMES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
)

Stops = Annotated[list[str], Len(max_length=16)]


class InputsGrammar(BaseModel):
    """TGI's way to ask for a form. ``json_schema`` holds its schema one level deeper."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    type: Literal["json", "regex", "json_schema"]
    value: str | dict[str, object]

    def spec(self) -> GrammarSpec:
        """Raises BadRequest."""
        if self.type == "regex":
            if not isinstance(self.value, str):
                raise BadRequest("parameters.grammar.value: a regex is a text.", param=_GRAMMAR)
            return GrammarSpec(Form.REGEX, self.value, _GRAMMAR)
        value: object = self.value
        if self.type == "json_schema" and isinstance(value, dict):
            value = value.get("schema", value)
        return GrammarSpec.json(value, _GRAMMAR)


class Parameters(FormBody):
    """All of them are about generation, so that one we do not know is refused."""

    under: ClassVar[str] = "parameters."
    closed: ClassVar[bool] = True

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
    eos_token_id: int | Annotated[list[int], Len(max_length=64)] | None = None
    ignore_eos_token: bool | None = None
    ignore_eos: bool | None = None
    return_full_text: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    top_n_tokens: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None
    truncate: Annotated[int, Ge(1)] | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    grammar: InputsGrammar | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    adapter_id: str | None = None
    priority: int | None = None
    timeout: Annotated[float, Gt(0)] | None = None
    stream: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **unsupported.NEUTRAL,
        "logprobs": (),
        "output_formatter": ("json",),
    }
    instead: ClassVar[Mapping[str, str]] = {
        "logprobs": "details",
        "max_length": "max_new_tokens",
        "min_length": "min_new_tokens",
        "stop_strings": "stop",
    }
    harmless: ClassVar[frozenset[str]] = unsupported.HARMLESS | {"guided_decoding_backend"}

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
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text besides the model's own, or in their place."""
        own = self.eos_token_id
        listed = [own] if isinstance(own, int) else own or []
        return (*(self.stop_token_ids or ()), *(() if self._ignores_eos else listed))

    @property
    def ignores_models_eos(self) -> bool:
        return self._ignores_eos or self.eos_token_id is not None

    @property
    def _ignores_eos(self) -> bool:
        return bool(self.ignore_eos_token or self.ignore_eos)

    def sampled(self, *, tgi: bool) -> bool:
        """Whether tokens are drawn, as the image's own server decides. TGI draws whenever a value
        changes the distribution, whatever ``do_sample`` says; LMI draws where ``do_sample`` is
        true, or is absent and there is a temperature. With temperature 0 neither would."""
        if self.temperature == 0:
            return False
        if not tgi:
            return self.temperature is not None if self.do_sample is None else self.do_sample
        narrowed = (self.top_k or 0) > 0 or (self.top_p is not None and self.top_p < 1)
        return bool(self.do_sample) or self.temperature not in (None, 1) or narrowed

    def _forms(self) -> list[GrammarSpec | None]:
        return [*super()._forms(), None if self.grammar is None else self.grammar.spec()]


class InputsBody(Body):
    inputs: str | Annotated[list[str], Len(min_length=1, max_length=MAX_INPUTS)]
    parameters: dict[str, object] | None = None
    stream: bool | None = None
    adapters: str | list[str] | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **Parameters.neutral,
        **dict.fromkeys(Parameters.model_fields, ()),
    }
    instead: ClassVar[Mapping[str, str]] = {
        name: f"parameters.{meant}"
        for name, meant in {
            **{name: name for name in Parameters.model_fields},
            **Parameters.instead,
        }.items()
    }
    harmless: ClassVar[frozenset[str]] = Parameters.harmless | {"options", "model"}

    def terms(self, parameters: Parameters) -> list[Terms]:
        """Of each input. `adapters` is LMI's, one name for every input or one for each;
        `parameters.adapter_id` is TGI's. An empty name is the model itself. Raises BadRequest."""
        count = 1 if isinstance(self.inputs, str) else len(self.inputs)
        given = self.adapters
        if given is None:
            names = [parameters.adapter_id or ""] * count
        elif parameters.adapter_id is not None:
            raise BadRequest(
                "adapters and parameters.adapter_id both name an adapter.",
                param="adapters",
                hint="Leave out one of the two.",
            )
        else:
            names = [given] * count if isinstance(given, str) else given
        if len(names) != count:
            raise BadRequest(
                f"adapters has {len(names)} names for {count} inputs.",
                param="adapters",
                hint="Send one name for each input, or a single text for all.",
                code="invalid_value",
            )
        return [
            Terms(
                priority=parameters.priority or 0,
                timeout_s=parameters.timeout,
                adapter=name or None,
            )
            for name in names
        ]
