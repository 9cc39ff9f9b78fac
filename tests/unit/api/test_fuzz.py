"""Every operation, fed from its own shape: valid, missing, of a wrong type, too long, unknown.
Whatever comes, the answer is the operation's or a typed error below 500, and never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.serialize import RpcV2CBORSerializer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ridgeline_service.api.output import to_cbor
from ridgeline_service.api.patterns import python_pattern
from ridgeline_service.api.shapes import BY_SCOPE, SERVICES
from ridgeline_service.control import ControlPlane
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import open_database

SETTINGS = Settings()


@pytest.fixture(scope="module")
def control(folder: Path) -> Iterator[ControlPlane]:
    """The real verbs over a real database, so that no fake hides what they do with odd input."""
    database = open_database(SETTINGS, DataDir(folder))
    yield ControlPlane(database, SETTINGS, DataDir(folder))
    database.close()


OPERATIONS = [(service.scope, name) for service in SERVICES for name in service.operations]
JSON_OPERATIONS = [pair for pair in OPERATIONS if BY_SCOPE[pair[0]].target]
QUERY_OPERATIONS = [pair for pair in OPERATIONS if "query" in BY_SCOPE[pair[0]].protocols]
# A longer hunt: RIDGELINE_FUZZ_EXAMPLES=500.
FUZZ = settings(
    max_examples=int(os.environ.get("RIDGELINE_FUZZ_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "\0", "a" * 5000, "../../etc", "\U0001f600", -(2**63), 2**64, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)


def valid(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a shape, as its JSON form; deep optional members are left out."""
    low = int(shape.metadata.get("min", 0))
    few = min(low + 2, int(shape.metadata.get("max", low + 2)))
    if isinstance(shape, StructureShape):
        required = {name: valid(shape.members[name], depth + 1) for name in shape.required_members}
        optional = {
            name: valid(member, depth + 1)
            for name, member in shape.members.items()
            if name not in required and depth < 3
        }
        if shape.is_tagged_union:
            return st.sampled_from(list(optional)).flatmap(
                lambda name: st.fixed_dictionaries({name: optional[name]})
            )
        return st.fixed_dictionaries(required, optional=optional)
    if isinstance(shape, ListShape):
        return st.lists(valid(shape.member, depth + 1), min_size=low, max_size=few)
    if isinstance(shape, MapShape):
        keys, items = valid(shape.key, depth + 1), valid(shape.value, depth + 1)
        return st.dictionaries(keys, items, min_size=low, max_size=few)
    match shape.type_name:
        case "string":
            return _text(shape, low)
        case "integer" | "long":
            return st.integers(low, int(shape.metadata.get("max", low + 1000)))
        case "float" | "double":
            return st.floats(low, shape.metadata.get("max", 1e6))
        case "boolean":
            return st.booleans()
        case "timestamp":
            return st.integers(0, 2**32)
        case _:
            return st.just("")


def _text(shape: Shape, low: int) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    high = int(shape.metadata.get("max", 60))
    # Almost all of Unicode in one class takes a minute to draw from, and any text fits it.
    if "\\uD7FF" not in shape.metadata.get("pattern", "\\uD7FF"):
        pattern = python_pattern(shape.metadata["pattern"])
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: low <= len(text) <= high)
    return st.text(alphabet="abcXYZ019-", min_size=low, max_size=min(high, low + 20))


@st.composite
def requests(draw: st.DrawFn, scope: str, name: str) -> Any:
    """A request for an operation that was valid before up to three things were done to it."""
    shape = BY_SCOPE[scope].operation(name).input_shape
    request = draw(valid(shape)) if shape is not None else {}
    for _ in range(draw(st.integers(0, 3))):
        request = draw(_damaged(request))
    return request


@st.composite
def _damaged(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.sampled_from(["inside", "inside", "drop", "rename", "add"]))
        rest = {name: item for name, item in value.items() if name != key}
        if what == "drop":
            return rest
        if what == "rename":
            return {**rest, draw(st.text(max_size=8)): value[key]}
        if what == "add":
            return {**value, draw(st.text(max_size=8)): draw(anything)}
        return {**rest, key: draw(_damaged(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [draw(_damaged(value[0])), *value[1:]]
    if isinstance(value, str) and draw(st.booleans()):
        return value * draw(st.sampled_from([0, 2, 400]))
    return draw(anything)


def assert_civil(answer: Any) -> None:
    assert answer.status < 500, answer
    text = answer.body.decode("utf-8", "replace")
    assert "Traceback" not in text
    assert 'File "' not in text
    assert answer.headers["x-amzn-requestid"]


@pytest.mark.parametrize(("scope", "name"), JSON_OPERATIONS)
def test_json_operations(direct, scope: str, name: str) -> None:
    @FUZZ
    @given(requests(scope, name))
    def fuzz(request: Any) -> None:
        answer = direct.call(name, request, service=scope)
        assert_civil(answer)
        if answer.status >= 400:
            assert answer.json["__type"] == answer.headers["x-amzn-errortype"]
            assert answer.json["message"]

    fuzz()


@pytest.mark.parametrize(("scope", "name"), OPERATIONS)
def test_valid_requests_pass_the_checks(direct, scope: str, name: str) -> None:
    """The generator's own promise: without damage nothing is refused as invalid."""
    service = BY_SCOPE[scope]
    if not service.target:
        return
    shape = service.operation(name).input_shape

    @FUZZ
    @given(valid(shape))
    def fuzz(request: Any) -> None:
        answer = direct.call(name, request, service=scope)
        assert_civil(answer)
        assert b"validation error" not in answer.body, (request, answer)
        assert b"cannot be converted" not in answer.body, (request, answer)

    fuzz()


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        parts = [flat(item, f"{prefix}.{key}" if prefix else key) for key, item in value.items()]
        return [pair for part in parts for pair in part]
    if isinstance(value, list):
        parts = [flat(item, f"{prefix}.member.{at}") for at, item in enumerate(value, start=1)]
        return [pair for part in parts for pair in part]
    text = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return [(prefix, str(text).encode("utf-8", "replace").decode())]


@pytest.mark.parametrize(("scope", "name"), QUERY_OPERATIONS)
def test_query_operations(direct, scope: str, name: str) -> None:
    @FUZZ
    @given(requests(scope, name))
    def fuzz(request: Any) -> None:
        body = urlencode([("Action", name), *flat(request)]).encode()
        answer = direct.send("POST", "/", service=scope, body=body)
        assert_civil(answer)
        assert answer.body.startswith(b"<")

    fuzz()


@pytest.mark.parametrize("name", BY_SCOPE["monitoring"].operations)
def test_cbor_operations(direct, name: str) -> None:
    shape = BY_SCOPE["monitoring"].operation(name).input_shape
    path = f"/service/GraniteServiceVersion20100801/operation/{name}"

    @FUZZ
    @given(requests("monitoring", name), st.integers(0, 40), st.binary(max_size=4))
    @example({}, 0, b"\xbf")
    @example({}, 0, b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff")
    @example({}, 0, b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")
    @example({}, 0, b"\x81" * 5000)
    @example({}, 0, b"\xc1\x1b" + (101979039709948259).to_bytes(8, "big"))  # a time of no calendar
    def fuzz(request: Any, at: int, splice: bytes) -> None:
        try:
            body = bytearray()
            RpcV2CBORSerializer()._serialize_data_item(body, request, shape)
            raw = bytes(body)
        except Exception:  # what botocore cannot write is sent as bytes of its JSON instead
            raw = json.dumps(request).encode("utf-8", "replace")
        answer = direct.send("POST", path, service="monitoring", body=raw[:at] + splice + raw[at:])
        assert_civil(answer)

    fuzz()
    assert to_cbor(None, {}) == b"\xa0"


@settings(max_examples=200, deadline=None)
@given(
    scope=st.sampled_from([*BY_SCOPE, "s3", "ec2", "", "\xff"]),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
    path=st.sampled_from(["/", "/service/", "/service/X/operation/Y", "/BatchPutMetrics", "/\0"])
    | st.text(max_size=20).map(lambda text: "/" + text),
    target=st.sampled_from(
        ["", "SageMaker", "SageMaker.", ".", "Logs_20140328.GetLogEvents", "X.Y"]
    )
    | st.text(max_size=20),
    query=st.binary(max_size=20) | st.just(b"Action=GetRole&RoleName=x"),
    body=st.binary(max_size=40)
    | st.sampled_from([b"{", b"[]", b"1", b"null", b"[" * 50_000, b"{}"]),
)
def test_any_request_at_all(direct, scope, method, path, target, query, body) -> None:
    if path.startswith(("/api", "/healthz", "/metrics")):
        return
    answer = direct.send(
        method,
        path.encode("utf-8", "replace").decode(),
        service=scope,
        headers={"x-amz-target": target} if target else {},
        query=query,
        body=body,
    )
    assert_civil(answer)
