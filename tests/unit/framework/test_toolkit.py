"""The hosting contract in process: arguments, answers, content types."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.serving.framework import compat, formats, pipelines, scikit
from ridgeline_service.serving.framework.defaults import Defaults
from ridgeline_service.serving.framework.errors import (
    BadRequest,
    ContractError,
    NotAcceptable,
    UnsupportedContentType,
)
from ridgeline_service.serving.framework.settings import HostingSettings
from ridgeline_service.serving.framework.toolkit import (
    Context,
    Request,
    UserModel,
    answer,
    call,
    code_directories,
    load_model,
)

CONTEXT = Context({"model_dir": "/opt/ml/model"}, {"accept": "a"})
BASE = {"RIDGELINE_REPLICA_ID": "r", "RIDGELINE_REPLICA_TOKEN": "t"}


def settings(**environment: str) -> HostingSettings:
    return HostingSettings.read(BASE | environment)


@contextmanager
def no_stage(name: str) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: (a, b), (1, 2)),
        (lambda a, b, context: (a, b, context), (1, 2, CONTEXT)),
        (lambda a, b, ctx: (a, b, ctx), (1, 2, CONTEXT)),
        (lambda a, b, context=None: (a, b, context), (1, 2, CONTEXT)),
        (lambda a, b, size=7: (a, b, size), (1, 2, 7)),
        (lambda *all_: all_, (1, 2)),
        (lambda a, b, **more: (a, b), (1, 2)),
    ],
)
def test_a_function_gets_the_context_only_if_it_takes_it(
    function: Callable[..., Any], expected: object
) -> None:
    assert call(function, 1, 2, context=CONTEXT) == expected


@pytest.mark.parametrize("function", [lambda a: a, lambda a, b, c, d: a, lambda: None])
def test_a_function_with_other_arguments_breaks_the_contract(function: Callable[..., Any]) -> None:
    with pytest.raises(ContractError, match="arguments"):
        call(function, 1, 2, context=CONTEXT)


@pytest.mark.parametrize(
    ("result", "body", "content_type"),
    [
        (b"raw", b"raw", "text/csv"),
        ("text é", "text é".encode(), "text/csv"),
        (({"a": 1}, "application/json"), b'{"a": 1}', "application/json"),
        ([1.5, 2], b"[1.5, 2]", "text/csv"),
        (np.float32(0.5), b"0.5", "text/csv"),
    ],
)
def test_what_user_code_may_return(result: object, body: bytes, content_type: str) -> None:
    made = answer(result, "text/csv;q=1, */*", Context({}))
    assert (made.body, made.content_type) == (body, content_type)


def test_the_context_sets_headers_and_status_of_the_answer() -> None:
    context = Context({})
    context.set_response_status(202)
    context.set_response_header("X-Amzn-SageMaker-Custom-Attributes", "k=v")
    context.set_response_content_type(0, "text/html")
    made = answer("x", "text/csv", context)
    assert (made.status, made.content_type) == (202, "text/html")
    assert made.headers == {"X-Amzn-SageMaker-Custom-Attributes": "k=v"}


def model(**functions: Any) -> UserModel:
    base = Defaults("application/json")
    values: dict[str, Any] = {
        "input_fn": base.input_fn,
        "predict_fn": base.predict_fn,
        "output_fn": base.output_fn,
        "transform_fn": None,
        **functions,
    }
    return UserModel(model=None, model_dir="/m", default_accept="text/csv", **values)


@pytest.mark.parametrize(
    ("accept", "seen"), [("", "text/csv"), ("*/*", "text/csv"), ("a/b", "a/b")]
)
def test_the_default_accept_stands_in_for_none(accept: str, seen: str) -> None:
    user = model(transform_fn=lambda model, body, content_type, accept: accept)
    assert user.invoke(Request(b"", "application/json", accept)).body == seen.encode()


def test_bodies_are_text_for_json_and_csv_and_bytes_otherwise() -> None:
    user = model(transform_fn=lambda m, body, content_type, accept: type(body).__name__)
    kinds = {"application/json": b"str", "text/csv; charset=utf-8": b"str", "image/png": b"bytes"}
    for content_type, seen in kinds.items():
        assert user.invoke(Request(b"1", content_type, "")).body == seen
    with pytest.raises(BadRequest, match="UTF-8"):
        user.invoke(Request(b"\xff", "text/csv", ""))


def test_a_predict_fn_that_generates_is_streamed_without_output_fn() -> None:
    user = model(
        input_fn=lambda body, content_type: int(body),
        predict_fn=lambda count, model: ({"part": n} for n in range(count)),
    )
    made = user.invoke(Request(b"2", "application/json", ""))
    assert not isinstance(made.body, bytes)
    assert list(made.body) == [b'{"part": 0}', b'{"part": 1}']


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2), min_size=1),
    st.sampled_from(["application/json", "application/x-npy", "text/csv"]),
)
def test_numbers_survive_every_format(rows: list[list[float]], kind: str) -> None:
    array = np.array(rows, dtype=np.float64)
    back = np.asarray(formats.decode(formats.encode(array, kind), kind), dtype=np.float64)
    assert np.array_equal(back.reshape(array.shape), array)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_json_lines_may_hold_the_line_ends_of_unicode(end: str) -> None:
    body = f'"a{end}b"\r\n"c"\n'
    for given_body in (body, body.encode()):
        assert formats.decode(given_body, "application/jsonlines") == [f"a{end}b", "c"]


def test_pickled_arrays_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadRequest, match="application/x-npy"):
        formats.decode(buffer.getvalue(), "application/x-npy")


def test_types_nobody_can_read_or_write_are_named() -> None:
    with pytest.raises(UnsupportedContentType, match="application/xml"):
        formats.decode(b"<a/>", "application/xml")
    with pytest.raises(NotAcceptable, match="image/png"):
        formats.choose("image/png", "application/json")
    assert formats.choose("image/png, text/csv", "application/json") == "text/csv"
    assert formats.choose("*/*", "text/csv") == "text/csv"


def test_settings_come_from_sagemakers_variables() -> None:
    read = settings(
        SAGEMAKER_BIND_TO_PORT="20001",
        SAGEMAKER_MODEL_SERVER_TIMEOUT="7",
        SAGEMAKER_MODEL_SERVER_WORKERS="3",
        SAGEMAKER_MAX_PAYLOAD_IN_MB="2",
        SAGEMAKER_PROGRAM="",
        RIDGELINE_RUNTIME="huggingface-pytorch-inference",
    )
    assert (read.port, read.timeout_s, read.workers) == (20001, 7.0, 3)
    assert (read.max_payload_bytes, read.program, read.is_hugging_face) == (2 << 20, "", True)
    assert settings().program == "inference.py"
    with pytest.raises(ValueError, match="SAGEMAKER_MODEL_SERVER_WORKERS"):
        settings(SAGEMAKER_MODEL_SERVER_WORKERS="many")


def test_code_is_found_where_the_sdks_put_it(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    here = {"RIDGELINE_MODEL_DIR": str(tmp_path)}
    found = code_directories(settings(SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/model/code", **here))
    assert found == [tmp_path / "code", tmp_path]
    assert code_directories(settings(SAGEMAKER_SUBMIT_DIRECTORY="s3://b/k", **here)) == found


def test_a_program_may_lie_in_a_folder_and_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "code" / "src").mkdir(parents=True)
    (tmp_path / "code" / "src" / "user_helper.py").write_text("VALUE = 5\n")
    (tmp_path / "code" / "src" / "user_serve.py").write_text(
        "import user_helper\ndef model_fn(d): return user_helper.VALUE\n"
        "def transform_fn(m, b, c, a): return str(m)\n"
    )
    loaded = load_model(
        settings(RIDGELINE_MODEL_DIR=str(tmp_path), SAGEMAKER_PROGRAM="src/user_serve.py"),
        no_stage,
    )
    assert loaded.invoke(Request(b"", "application/json", "")).body == b"5"


def test_what_users_import_of_the_toolkits_is_there(tmp_path: Path) -> None:
    (tmp_path / "user_toolkit.py").write_text(
        "from sagemaker_inference import content_types, decoder, encoder, errors\n"
        "from sagemaker_huggingface_inference_toolkit import decoder_encoder\n"
        "def model_fn(d): return None\n"
        "def transform_fn(m, body, content_type, accept):\n"
        "    assert issubclass(errors.UnsupportedFormatError, Exception)\n"
        "    assert decoder_encoder.decode('inputs\\na\\n', 'text/csv') == {'inputs': ['a']}\n"
        "    return encoder.encode(decoder.decode(body, content_type), content_types.JSON)\n"
    )
    loaded = load_model(
        settings(RIDGELINE_MODEL_DIR=str(tmp_path), SAGEMAKER_PROGRAM="user_toolkit.py"), no_stage
    )
    assert loaded.invoke(Request(b"1,2", "text/csv", "")).body == b"[1, 2]"


def test_real_toolkits_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "sagemaker_inference").mkdir()
    (tmp_path / "sagemaker_inference" / "__init__.py").write_text("REAL = True\n")
    sys.path.insert(0, str(tmp_path))
    compat.install()
    import sagemaker_inference  # type: ignore[import-not-found]  # made above

    assert sagemaker_inference.REAL


class Sums:
    """A fitted model of scikit-learn, as far as its defaults know it."""

    def predict(self, table: np.ndarray) -> np.ndarray:
        assert table.dtype == np.float32
        return table.sum(axis=1)


def test_scikit_learn_predicts_rows_of_numbers() -> None:
    base = scikit.SklearnDefaults("application/json", "a code/inference.py")

    def says(body: str, content_type: str, accept: str) -> bytes:
        prediction = base.predict_fn(base.input_fn(body, content_type), Sums())
        return base.output_fn(prediction, accept)[0]

    assert says("1,2\n3,4\n", "text/csv", "text/csv") == b"3.0\n7.0\n"
    assert says("1,2\n", "text/csv", "text/csv") == b"3.0\n"
    assert says("1,2\r\n3,4\r\n", "text/csv", "text/csv") == b"3.0\n7.0\n"
    assert says("1\n2\n", "text/csv; charset=utf-8", "*/*") == b"[1.0, 2.0]"
    assert says("[[1, 2], [3, 4]]", "application/json", "application/json") == b"[3.0, 7.0]"
    assert says("[1, 2]", "application/json", "application/json") == b"[3.0]"
    for body in ("1,two", "1,2\n3\n"):
        with pytest.raises(BadRequest, match="no table of numbers"):
            base.input_fn(body, "text/csv")
    with pytest.raises(ContractError, match="Please provide a model_fn"):
        base.model_fn("/m")


def test_hugging_face_bodies() -> None:
    base = pipelines.PipelineDefaults("application/json", "text-classification")

    def pipeline(*given: object, **parameters: object) -> list[object]:
        return [given, parameters]

    assert base.predict_fn({"inputs": "a", "parameters": {"top_k": 2}}, pipeline) == [
        ("a",),
        {"top_k": 2},
    ]
    assert base.predict_fn({"question": "q", "context": "c"}, pipeline) == [
        ({"question": "q", "context": "c"},),
        {},
    ]
    assert base.input_fn("question,context\nq,c\n", "text/csv") == {
        "inputs": [{"question": "q", "context": "c"}]
    }
    assert base.input_fn(b"\x89PNG", "image/png") == {"inputs": b"\x89PNG"}
    with pytest.raises(BadRequest, match="header"):
        base.input_fn("1,2\n", "text/csv")


def test_the_pipelines_task_comes_from_the_config(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    with pytest.raises(ContractError, match="HF_TASK"):
        pipelines.task_of(config)
    config.write_text(json.dumps({"architectures": ["DistilBertForSequenceClassification"]}))
    assert pipelines.task_of(config) == "text-classification"
    config.write_text(json.dumps({"architectures": ["BertModel"]}))
    assert pipelines.task_of(config) == "feature-extraction"
    config.write_text(json.dumps({"architectures": ["SomethingElse"]}))
    with pytest.raises(ContractError, match="SomethingElse"):
        pipelines.task_of(config)
