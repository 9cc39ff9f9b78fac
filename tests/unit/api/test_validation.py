"""Input checks: SageMaker's wording, and never laxer than botocore's own validator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.api.patterns import python_pattern
from ridgeline_service.api.shapes import SERVICES, Service
from ridgeline_service.api.validation import (
    InvalidRequest,
    SerializationException,
    Validator,
)

ROLE = "arn:aws:iam::123456789012:role/R"
SAGEMAKER = SERVICES[0]


def check(operation: str, request: object, service: Service = SAGEMAKER) -> dict[str, Any]:
    validator = Validator(service.validation_code)
    return validator.check(service.operation(operation).input_shape, request)


def said(operation: str, request: object, service: Service = SAGEMAKER) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check(operation, request, service)
    assert caught.value.code == service.validation_code
    assert caught.value.http_status == 400
    return caught.value.message


def test_a_missing_member_is_named() -> None:
    assert said("DescribeModel", {}) == (
        "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: "
        "Member must not be null"
    )
    assert said("DescribeModel", {"ModelName": None}) == said("DescribeModel", {})


def test_a_pattern_a_length_and_a_range() -> None:
    pattern = SAGEMAKER.operation("CreateModel").input_shape.members["ModelName"]
    assert said("DescribeModel", {"ModelName": "a_b"}) == (
        "1 validation error detected: Value 'a_b' at 'modelName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern.metadata['pattern']}"
    )
    assert "Member must have length less than or equal to 63" in said(
        "DescribeModel", {"ModelName": "a" * 64}
    )
    assert "at 'maxResults' failed to satisfy constraint: Member must have value less" in said(
        "ListModels", {"MaxResults": 101}
    )
    assert "Member must have value greater than or equal to 1" in said(
        "ListModels", {"MaxResults": 0}
    )
    assert "Member must satisfy enum value set: [Name, CreationTime]" in said(
        "ListModels", {"SortBy": "Size"}
    )


def test_every_fault_is_reported_with_its_path() -> None:
    message = said(
        "CreateEndpointConfig",
        {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "v"}, {}], "Tagz": []},
    )
    assert message.startswith("2 validation errors detected: ")
    assert "Value null at 'productionVariants.2.member.variantName'" in message
    assert "Unknown member 'Tagz'. Did you mean 'Tags'?" in message


def test_what_the_caller_wrote_keeps_its_case_in_a_path() -> None:
    long = {"Image": "i", "Environment": {"A": "x" * 2000}, "Imagez": "i"}
    message = said("CreateModel", {"ModelName": "m", "PrimaryContainer": long})
    assert "at 'primaryContainer.environment.A.member' failed" in message
    assert "Unknown member 'primaryContainer.Imagez'. Did you mean 'Image'?" in message
    with pytest.raises(SerializationException, match=r"at 'primaryContainer\.environment\.B\."):
        check("CreateModel", {"PrimaryContainer": {"Environment": {"B": 1}}})


def test_new_instance_types_are_let_in() -> None:
    variant = {
        "VariantName": "v",
        "ModelName": "m",
        "InstanceType": "ml.p99.48xlarge",
        "InitialInstanceCount": 1,
    }
    checked = check(
        "CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]}
    )
    assert checked["ProductionVariants"][0]["InstanceType"] == "ml.p99.48xlarge"


def test_targets_that_botocore_does_not_know_are_let_in() -> None:
    output = {"S3OutputLocation": "s3://b/out", "TargetDevice": "ml_trn2"}
    request = {
        "CompilationJobName": "c",
        "RoleArn": "arn:aws:iam::000000000000:role/compiles",
        "OutputConfig": output,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    assert check("CreateCompilationJob", request)["OutputConfig"] == output


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"ModelName": 1}, "NUMBER_VALUE cannot be converted to String at 'modelName'."),
        ({"ModelName": ["m"]}, "LIST_VALUE cannot be converted to String at 'modelName'."),
        ({"Tags": {}}, "STRUCTURE_VALUE cannot be converted to List at 'tags'."),
        ({"Tags": ["x"]}, "STRING_VALUE cannot be converted to Structure at 'tags.1.member'."),
        ({"EnableNetworkIsolation": "true"}, "STRING_VALUE cannot be converted to Boolean"),
        ({"ModelName": "a\0"}, "null character"),
        ({"ModelName": "\ud800"}, "surrogate"),
    ],
)
def test_wrong_types_are_serialization_exceptions(request_: object, message: str) -> None:
    with pytest.raises(SerializationException) as caught:
        check("CreateModel", request_)
    assert message in caught.value.message


@pytest.mark.parametrize("value", [True, 1.5, "1", 2**40, -(2**40), float("inf"), float("nan")])
def test_what_is_no_integer(value: object) -> None:
    with pytest.raises(SerializationException):
        check("ListModels", {"MaxResults": value})


def test_integers_may_come_as_whole_floats() -> None:
    assert check("ListModels", {"MaxResults": 5.0}) == {"MaxResults": 5}


@pytest.mark.parametrize("value", [1772582400, 1772582400.0, "2026-03-04T00:00:00Z"])
def test_timestamps_become_aware_datetimes(value: object) -> None:
    checked = check("ListModels", {"CreationTimeAfter": value})
    assert checked == {"CreationTimeAfter": datetime(2026, 3, 4, tzinfo=UTC)}


@pytest.mark.parametrize("value", [1e300, -(10**15), True, "soon", [], "9999-99-99"])
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(SerializationException):
        check("ListModels", {"CreationTimeAfter": value})


def test_an_operation_without_input_takes_none() -> None:
    sts = next(service for service in SERVICES if service.scope == "sts")
    assert check("GetCallerIdentity", {}, sts) == {}
    assert "Unknown member 'x'" in said("GetCallerIdentity", {"x": 1}, sts)


def test_tags_may_hold_letters_of_any_script() -> None:
    tags = [{"Key": "équipe: 日本語", "Value": "a+b=c@d/é_\u00a0"}]
    assert check(
        "AddTags", {"ResourceArn": "arn:aws:sagemaker:r:123456789012:model/m", "Tags": tags}
    )
    assert python_pattern("[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*").fullmatch("!") is None
    catalogue = python_pattern("[\\u0020-\\uD7FF\\uD800\\uDC00-\\uDBFF\\uDFFF\\t]*")
    assert catalogue.fullmatch("a catalogue \U0001f600\t")
    assert catalogue.fullmatch("\n") is None


def test_secrets_are_not_repeated() -> None:
    shape = next(
        shape
        for name in SAGEMAKER.botocore.shape_names
        if (shape := SAGEMAKER.botocore.shape_for(name)).metadata.get("sensitive")
        and shape.type_name == "string"
        and shape.metadata.get("max", 10**6) < 10**4
    )
    errors: list[str] = []
    Validator("ValidationException").compile(shape)("hush" * 10_000, (None, "Secret"), errors)
    assert errors
    assert "hush" not in errors[0]


def test_every_pattern_of_every_supported_operation_compiles() -> None:
    for service in SERVICES:
        validator = Validator(service.validation_code)
        for name in service.operations:
            shape = service.operation(name).input_shape
            if shape is not None:
                validator.compile(shape)


# Without nulls: on the wire they mean absence, and botocore's callers leave such members out.
values: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats().filter(lambda number: not number.is_integer())  # JSON's 1.0 is an integer, too
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_what_botocore_refuses_we_refuse(data: st.DataObject) -> None:
    service = data.draw(st.sampled_from([s for s in SERVICES if s.operations]))
    shape = service.operation(data.draw(st.sampled_from(service.operations))).input_shape
    if shape is None:
        return
    names = st.sampled_from(list(shape.members) or ["x"]) | st.text(max_size=4)
    request = data.draw(st.dictionaries(names, values, max_size=6))
    try:
        Validator("ValidationException").check(shape, request)
    except (InvalidRequest, SerializationException):
        return
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
