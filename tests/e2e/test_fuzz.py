"""Whatever a client sends, the answer is typed: never a 5xx, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import boto3
import httpx2 as httpx
import pytest
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e

SUPPORTED = (
    *("CreateModel", "DescribeModel", "ListModels", "DeleteModel"),
    *("CreateEndpointConfig", "DescribeEndpointConfig", "ListEndpointConfigs"),
    *("DeleteEndpointConfig", "CreateEndpoint", "DescribeEndpoint", "ListEndpoints"),
    *("DeleteEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities"),
    *("AddTags", "ListTags", "DeleteTags"),
)
MODEL = boto3.client(
    "sagemaker", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
).meta.service_model
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def value_of(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Mostly of the shape's type, sometimes of another; lengths and patterns left to chance."""
    if depth > 4:
        return st.none()
    if shape.type_name == "structure":
        members = {
            name: value_of(member, depth + 1) for name, member in list(shape.members.items())[:8]
        }
        right: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=members)
    elif shape.type_name == "list":
        right = st.lists(value_of(shape.member, depth + 1), max_size=2)
    elif shape.type_name == "map":
        right = st.dictionaries(st.text(max_size=5), value_of(shape.value, depth + 1), max_size=2)
    elif shape.type_name == "boolean":
        right = st.booleans()
    elif shape.type_name in ("integer", "long"):
        right = st.integers()
    elif shape.type_name in ("float", "double", "timestamp"):
        right = st.floats(allow_nan=False)
    else:
        names = st.sampled_from(["a", "fuzz-1", "-", "x" * 300, "é", "a b", "s3://b/k", "\0"])
        right = names | st.text(max_size=70)
    return st.one_of(right, right, right, JSON)


def post(service: Service, operation: str, body: bytes) -> httpx.Response:
    request = AWSRequest(
        "POST",
        service.url + "/",
        data=body,
        headers={
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"SageMaker.{operation}",
        },
    )
    key = Credentials(
        service.variables["AWS_ACCESS_KEY_ID"], service.variables["AWS_SECRET_ACCESS_KEY"]
    )
    SigV4Auth(key, "sagemaker", "us-east-1").add_auth(request)
    return httpx.post(service.url + "/", content=body, headers=dict(request.headers))


@pytest.mark.parametrize("operation", SUPPORTED)
def test_sagemaker_operations(service: Service, operation: str) -> None:
    shape = MODEL.operation_model(operation).input_shape

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(value_of(shape).map(json.dumps), st.text(max_size=30)))
    def answers_are_typed(body: str) -> None:
        answer = post(service, operation, body.encode())
        assert answer.status_code < 500, (body, answer.text)
        assert "Traceback" not in answer.text
        if answer.status_code >= 400:
            assert answer.headers["x-amzn-requestid"]
            assert answer.json()["__type"], (body, answer.text)

    answers_are_typed()


@pytest.mark.parametrize(
    ("operation", "next_step"),
    [
        ("CreateUnicorn", "Create"),
        ("CreateAutoMLJobV2", "search with CreateHyperParameterTuningJob"),
        ("", "GET /api/info lists the operations"),
        ("ListModels.X", "Did you mean 'ListModels'?"),
    ],
)
def test_an_operation_we_do_not_have_is_named_with_a_next_step(
    service: Service, operation: str, next_step: str
) -> None:
    answer = post(service, operation, b"{}")
    assert answer.status_code == 400
    message = answer.json()["message"]
    assert f"operation {operation} " in message or f"operation '{operation}'" in message
    assert next_step in message.partition(operation or ".")[2]


def test_rest_routes_by_their_own_openapi(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.api_key}"}
    document = httpx.get(f"{service.url}/api/openapi.json", headers=headers).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=service.url)

    checked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method.upper() == "DELETE" and "keys" in operation.path:
            continue  # must not revoke the key that the test uses
        checked += 1

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def typed(case: Any) -> None:
            answer = case.call(headers=headers)
            assert answer.status_code < 500, answer.text
            assert "Traceback" not in answer.text

        typed()
    assert checked >= 5


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
def test_openai_routes(service: Service, path: str) -> None:
    headers = {"Authorization": f"Bearer {service.api_key}"}

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(JSON.map(json.dumps) | st.text(max_size=20))
    def typed(body: str) -> None:
        answer = httpx.post(f"{service.url}/v1/{path}", content=body.encode(), headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["error"]["message"]

    typed()
