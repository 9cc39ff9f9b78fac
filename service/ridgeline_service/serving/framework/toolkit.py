"""The user's functions, or the toolkits' defaults in their place, as one callable model.

Finds inference.py, checks it against the hosting contract, calls ``model_fn`` and hands back a
``UserModel`` whose ``invoke`` is a whole request. Knows nothing of HTTP connections or threads.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ridgeline_service.serving.framework import compat, defaults, formats, pipelines, scikit
from ridgeline_service.serving.framework.errors import BadAnswer, ContractError
from ridgeline_service.serving.framework.journal import say
from ridgeline_service.serving.framework.settings import HostingSettings

Stage = Callable[[str], AbstractContextManager[None]]
Handler = Callable[..., Any]


@dataclass(frozen=True)
class Request:
    """One invocation. ``headers`` have lower-case names."""

    body: bytes
    content_type: str
    accept: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Context:
    """What a function that takes a further argument gets: the request's headers, where the model
    lies, and a say in the answer's. Shaped after the context of AWS's containers."""

    system_properties: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    answer_status: int = 200
    answer_headers: dict[str, str] = field(default_factory=dict)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.answer_status = code

    def set_response_header(self, key: str, value: str) -> None:
        self.answer_headers[key] = value

    def set_response_content_type(self, _index: int, value: str) -> None:
        self.answer_headers["Content-Type"] = value

    def get_request_header(self, _index: int, name: str) -> str | None:
        return self.headers.get(name.lower())

    def get_all_request_header(self, _index: int) -> dict[str, str]:
        return dict(self.headers)

    @property
    def request_processor(self) -> list[Context]:
        return [self]

    def get_request_properties(self) -> dict[str, str]:
        return dict(self.headers)


@dataclass(frozen=True)
class Answer:
    """``body`` is complete, or comes in parts where the user's code generates it."""

    body: bytes | Iterable[bytes]
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UserModel:
    """A loaded model with the functions of a request. Either ``transform_fn`` or the other three
    are used."""

    model: Any
    model_dir: str
    default_accept: str
    input_fn: Handler
    predict_fn: Handler
    output_fn: Handler
    transform_fn: Handler | None

    def invoke(self, request: Request) -> Answer:
        """Run one request through the user's functions. Raises what they raise."""
        context = Context({"model_dir": self.model_dir, "gpu_id": None}, request.headers)
        accept = request.accept
        if not accept or formats.media_type(accept) == formats.ANY:
            accept = self.default_accept
        body = formats.decoded_body(request.body, request.content_type)
        if self.transform_fn is not None:
            result = call(
                self.transform_fn, self.model, body, request.content_type, accept, context=context
            )
            return answer(result, accept, context)
        data = call(self.input_fn, body, request.content_type, context=context)
        prediction = call(self.predict_fn, data, self.model, context=context)
        if isinstance(prediction, Iterator):
            return answer(prediction, accept, context)
        result = call(self.output_fn, prediction, accept, context=context)
        return answer(result, accept, context)


def load_model(settings: HostingSettings, stage: Stage) -> UserModel:
    """Import the user's module and call its ``model_fn``; ``stage`` times each step.

    Raises ContractError where the module breaks the contract, and whatever its code raises.
    """
    with stage("environment import"):
        # The toolkits' containers run with the code directory as part of the path, too.
        for folder in reversed(code_directories(settings)):
            sys.path.insert(0, str(folder))
        if settings.threads is not None:
            _limit_threads(settings.threads)
        compat.install()
        module = _import_program(settings)
    found = {name: _function(module, name) for name in _FUNCTIONS}
    if found["transform_fn"] and any(
        found[name] for name in ("input_fn", "predict_fn", "output_fn")
    ):
        raise ContractError(
            "The module has a transform_fn and also input_fn, predict_fn or output_fn: "
            "use either the one or the others."
        )
    lacking = "a code/inference.py" if module is None else f"a model_fn in {settings.program}"
    base = defaults.Defaults(settings.default_accept, lacking)
    if settings.is_hugging_face:
        base = pipelines.PipelineDefaults(settings.default_accept, settings.task)
    elif settings.is_sklearn:
        base = scikit.SklearnDefaults(settings.default_accept, lacking)
    model_dir = str(settings.model_dir)
    context = Context({"model_dir": model_dir, "gpu_id": None})
    with stage("model_fn"):
        if found["pre_model_fn"]:
            call(found["pre_model_fn"], model_dir, context=context)
        model = call(found["model_fn"] or base.model_fn, model_dir, context=context)
        if found["model_warmup_fn"]:
            call(found["model_warmup_fn"], model_dir, model, context=context)
    return UserModel(
        model=model,
        model_dir=model_dir,
        default_accept=settings.default_accept,
        input_fn=found["input_fn"] or base.input_fn,
        predict_fn=found["predict_fn"] or base.predict_fn,
        output_fn=found["output_fn"] or base.output_fn,
        transform_fn=found["transform_fn"],
    )


def code_directories(settings: HostingSettings) -> list[Path]:
    """Where modules are looked for: the submit directory if it is a folder here, ``code/`` of the
    model, and the model's root (archives that were packed without ``code/``)."""
    wanted = [settings.model_dir / "code", settings.model_dir]
    submitted = settings.submit_directory
    if submitted.startswith("/opt/ml/model"):
        # Without a sandbox the model lies elsewhere.
        rest = submitted.removeprefix("/opt/ml/model").strip("/")
        wanted.insert(0, settings.model_dir / rest if rest else settings.model_dir)
    elif submitted.startswith("/"):
        wanted.insert(0, Path(submitted))
    return list(dict.fromkeys(folder for folder in wanted if folder.is_dir()))


def call(function: Handler, *arguments: Any, context: Context) -> Any:
    """Call a user's function, with the context as a further argument if it takes one more.

    Raises ContractError where the number of arguments does not fit.
    """
    parameters = inspect.signature(function).parameters.values()
    positional = [
        item
        for item in parameters
        if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(item.default is item.empty for item in positional)
    variadic = any(item.kind is item.VAR_POSITIONAL for item in parameters)
    count = len(arguments)
    if len(positional) > count and (required > count or positional[count].name == "context"):
        arguments = (*arguments, context)
    if required > len(arguments) or (len(positional) < count and not variadic):
        raise ContractError(
            f"{getattr(function, '__name__', function)} takes {len(positional)} arguments, "
            f"and is called with {count} and optionally the context."
        )
    return function(*arguments)


def answer(result: Any, accept: str, context: Context) -> Answer:
    """What a transform_fn or output_fn gave: a body, a (body, content type) pair or a generator.
    Raises BadAnswer."""
    headers = {str(name): str(value) for name, value in context.answer_headers.items()}
    content_type = headers.pop("Content-Type", formats.media_type(accept.partition(",")[0]))
    if isinstance(result, tuple) and len(result) == 2:
        result, content_type = result[0], str(result[1])
    _check_head(context.answer_status, {"Content-Type": content_type, **headers})
    body = (_part(item) for item in result) if isinstance(result, Iterator) else _part(result)
    return Answer(body, content_type, context.answer_status, headers)


def _check_head(status: object, headers: Mapping[str, str]) -> None:
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise BadAnswer(f"{str(status)[:80]!r} cannot be the status of an answer.")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise BadAnswer(f"{name[:80]!r} cannot be a header of an answer from a model.")
        if not _HEADER_VALUE.fullmatch(value):
            raise BadAnswer(
                f"{value[:80]!r}, {len(value)} characters, cannot be the value of the header "
                f"{name[:80]}: printable ASCII can, up to {_LONGEST_HEADER} characters."
            )


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_LONGEST_HEADER = 8190  # what servers and clients commonly take
_HEADER_VALUE = re.compile(rf"[\t\x20-\x7e]{{0,{_LONGEST_HEADER}}}")
_OWN_HEADERS = frozenset(("connection", "content-length", "transfer-encoding"))
_FUNCTIONS = (
    "model_fn",
    "input_fn",
    "predict_fn",
    "output_fn",
    "transform_fn",
    "pre_model_fn",
    "model_warmup_fn",
)


def _part(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    return formats.encode(value, formats.JSON)


def _import_program(settings: HostingSettings) -> ModuleType | None:
    """The user's module; None where there is none and the defaults do."""
    name = settings.program
    if not name:
        return None
    path = Path(name)
    if path.suffix and path.suffix != ".py":
        raise ContractError(f"SAGEMAKER_PROGRAM must name a Python file, got {name!r}.")
    for folder in code_directories(settings):
        if (folder / path.with_suffix(".py")).is_file():
            if path.parent != Path("."):
                sys.path.insert(0, str(folder / path.parent))
            say(f"Importing {folder / path.with_suffix('.py')}")
            return importlib.import_module(path.stem)
    if "SAGEMAKER_PROGRAM" in os.environ:
        looked = ", ".join(map(str, code_directories(settings))) or str(settings.model_dir)
        raise ContractError(f"{name} (SAGEMAKER_PROGRAM) was not found in {looked}.")
    return None


def _function(module: ModuleType | None, name: str) -> Handler | None:
    function = getattr(module, name, None)
    if function is not None and not callable(function):
        raise ContractError(f"{name} of the user's module is not a function.")
    return function


def _limit_threads(count: int) -> None:
    """Libraries read the variable when they are imported, which the user's code has yet to do."""
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
