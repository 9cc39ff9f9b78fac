"""Asking, changing and deleting an endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ridgeline import Predictor, WaiterConfig
from ridgeline.deserializers import StringDeserializer
from ridgeline.errors import (
    AlreadyExists,
    DeployFailed,
    InvalidInput,
    InvocationFailed,
    NotFound,
    NotReady,
    Overloaded,
)
from ridgeline.serializers import CSVSerializer
from ridgeline.session import Session

INVOKE = "POST /endpoints/e/invocations"
STREAM = "POST /endpoints/e/invocations-response-stream"
ASYNC = "POST /endpoints/e/async-invocations"


@pytest.fixture
def predictor(session: Session) -> Predictor:
    return Predictor("e", sagemaker_session=session)


def test_predict_sends_and_reads_json(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    fake.rules[INVOKE] = sdk_tools.Reply({"label": 1}, headers={"Content-Type": "application/json"})
    assert predictor.predict({"x": [1, 2]}, target_variant="blue", inference_id="i1") == {
        "label": 1
    }
    call = fake.calls[-1]
    assert call.json == {"x": [1, 2]}
    assert call.headers["content-type"] == "application/json"
    assert call.headers["accept"] == "application/json"
    assert call.headers["x-amzn-sagemaker-target-variant"] == "blue"
    assert call.headers["x-amzn-sagemaker-inference-id"] == "i1"


def test_serializer_and_deserializer_decide_types(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.rules[INVOKE] = sdk_tools.Reply(b"0.5")
    predictor = Predictor(
        "e", session, serializer=CSVSerializer(), deserializer=StringDeserializer()
    )
    assert predictor.predict([1, 2]) == "0.5"
    assert fake.calls[-1].body == b"1,2"
    assert fake.calls[-1].headers["content-type"] == "text/csv"


@pytest.mark.parametrize(
    ("status", "original", "words", "hint"),
    [
        (500, "KeyError: 'x'", "KeyError: 'x'", "Its log: `ridgeline logs e`."),
        (400, '{"error": {"message": "too long", "code": 400}}', "too long", ""),
        (400, '{"error": "too long", "code": 400}', "too long", ""),
        (400, '{"detail": [1]}', '{"detail": [1]}', ""),
    ],
)
def test_a_model_s_error_is_told_in_the_model_s_words(
    fake: Any,
    predictor: Predictor,
    sdk_tools: Any,
    status: int,
    original: str,
    words: str,
    hint: str,
) -> None:
    body = {
        "Message": f"Received server error ({status}) from primary with message {original}",
        "OriginalStatusCode": status,
        "OriginalMessage": original,
        "LogStreamArn": "arn:aws:logs:r:1:log-group:/aws/sagemaker/Endpoints/e:log-stream:a/1",
    }
    fake.rules[INVOKE] = sdk_tools.Reply(body, 424, {"x-amzn-ErrorType": "ModelError"})
    with pytest.raises(InvocationFailed) as caught:
        predictor.predict({})
    assert caught.value.message == f"The model answered with HTTP status {status}: {words}"
    assert caught.value.original_status == status
    assert caught.value.hint == hint


def test_an_unknown_endpoint(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    fake.rules[INVOKE] = sdk_tools.Reply(
        {"message": "Endpoint e of account 1 not found."},
        400,
        {"x-amzn-ErrorType": "ValidationError"},
    )
    with pytest.raises(NotFound, match="Endpoint e"):
        predictor.predict({})


def test_chat(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    fake.rules[INVOKE] = sdk_tools.Reply({"choices": [{"message": {"content": "Paris."}}]})
    assert predictor.chat("Capital of France?", temperature=0, max_tokens=5, stop="\n") == "Paris."
    assert fake.calls[-1].json == {
        "messages": [{"role": "user", "content": "Capital of France?"}],
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["\n"],
    }


def test_chat_streams(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    chunks = [b'data: {"choices": [{"delta": {"content": "Pa', b'ris"}}]}\n\ndata: [DONE]\n\n']
    fake.rules[STREAM] = sdk_tools.Reply(
        sdk_tools.event_stream(*chunks),
        headers={"Content-Type": "application/vnd.amazon.eventstream"},
    )
    assert list(predictor.chat("?", stream=True)) == ["Paris"]
    assert fake.calls[-1].json["stream"] is True


def test_a_stream_that_fails_midway(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    body = sdk_tools.event_stream(b"one", b"two", error=("ModelStreamError", "replica died"))
    fake.rules[STREAM] = sdk_tools.Reply(body)
    parts = predictor.stream({"inputs": "x"})
    assert next(parts) == b"one"
    assert next(parts) == b"two"
    with pytest.raises(InvocationFailed, match="replica died"):
        next(parts)


def test_the_request_of_a_stream_is_sent_at_once(
    fake: Any, predictor: Predictor, sdk_tools: Any
) -> None:
    """An error is raised by the call, not at some later moment by the loop."""
    fake.rules[STREAM] = sdk_tools.aws_error("ValidationError", "Endpoint e not found.")
    with pytest.raises(NotFound):
        predictor.stream({})


@pytest.fixture
def queued(fake: Any, sdk_tools: Any) -> Any:
    headers = {
        "X-Amzn-SageMaker-OutputLocation": "s3://b/out/1.out",
        "X-Amzn-SageMaker-FailureLocation": "s3://b/fail/1.out",
    }
    fake.rules[ASYNC] = sdk_tools.Reply({"InferenceId": "i1"}, 202, headers)
    return fake


def test_async_uploads_waits_and_reads(
    queued: Any, predictor: Predictor, clock: Any, sdk_tools: Any
) -> None:
    result = predictor.predict_async({"x": 1})
    (name,) = queued.objects
    assert name.startswith(f"{sdk_tools.bucket}/async-endpoint-inputs/e-")
    assert queued.objects[name] == (b'{"x": 1}', "application/json")
    assert queued.calls[-1].headers["x-amzn-sagemaker-inputlocation"] == f"s3://{name}"
    assert not result.ready()

    def arrive() -> None:
        if len(clock.slept) == 3:
            queued.objects["b/out/1.out"] = (b'{"y": 2}', "application/json")

    clock.on_sleep = arrive
    assert result.get_result() == {"y": 2}
    assert clock.slept == [1.0, 1.0, 1.0]
    assert result.inference_id == "i1"


@pytest.mark.parametrize(
    "body",
    [
        b"KeyError",
        b'{"Message": "KeyError"}',
        b'{"Message": "m", "OriginalStatusCode": 500, "OriginalMessage": "KeyError"}',
    ],
)
def test_async_failure(queued: Any, predictor: Predictor, body: bytes) -> None:
    result = predictor.predict_async(input_path="s3://b/in")
    queued.objects["b/fail/1.out"] = (body, "text/plain")
    with pytest.raises(InvocationFailed, match=r": KeyError($|\n)") as caught:
        result.get_result()
    assert "s3://b/fail/1.out" in caught.value.hint


def test_async_gives_up(queued: Any, predictor: Predictor, clock: Any) -> None:
    result = predictor.predict_async(input_path="s3://b/in")
    with pytest.raises(NotReady, match=r"s3://b/out/1\.out"):
        result.get_result(WaiterConfig(max_attempts=3, delay=5))
    assert clock.slept == [5, 5]


def test_async_needs_something_to_ask(predictor: Predictor) -> None:
    with pytest.raises(InvalidInput, match="data or input_path"):
        predictor.predict_async()
    with pytest.raises(InvalidInput, match="no S3 URI"):
        predictor.predict_async({}, input_path="/tmp/x")


def test_deleting_takes_the_config_and_remembers_the_models(
    fake: Any, predictor: Predictor, sdk_tools: Any
) -> None:
    fake.endpoint("e", config="e-config")
    predictor.delete_endpoint()
    gone = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "e".')
    fake.rules["DescribeEndpoint"] = gone
    predictor.delete_model()
    assert fake.requests("DeleteEndpoint") == [{"EndpointName": "e"}]
    assert fake.requests("DeleteEndpointConfig") == [{"EndpointConfigName": "e-config"}]
    assert fake.requests("DeleteModel") == [{"ModelName": "e-model"}]


def test_deleting_can_keep_the_config(fake: Any, predictor: Predictor) -> None:
    fake.endpoint("e")
    predictor.delete_endpoint(delete_endpoint_config=False)
    assert fake.requests("DeleteEndpoint")
    assert not fake.requests("DeleteEndpointConfig")


def test_what_is_gone_already_is_no_error(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    fake.endpoint("e")
    absent = sdk_tools.aws_error("ValidationException", 'Could not find model "m".')
    fake.rules["DescribeEndpointConfig"] = absent
    predictor.delete_endpoint()
    predictor.delete_model()
    assert fake.requests("DeleteEndpoint")


def test_deleting_an_endpoint_that_is_not_there(
    fake: Any, predictor: Predictor, sdk_tools: Any
) -> None:
    absent = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "e".')
    fake.rules["DescribeEndpoint"] = absent
    with pytest.raises(NotFound, match='"e"'):
        predictor.delete_endpoint()


def test_update_changes_what_is_given_and_keeps_the_rest(
    fake: Any, predictor: Predictor, sdk_tools: Any
) -> None:
    fake.endpoint("e", {"name": "e", "status": "Updating"}, {"name": "e", "status": "InService"})
    before = fake.rules["DescribeEndpoint"][0]
    fake.on(
        "DescribeEndpoint",
        before,
        lambda call: sdk_tools.Reply(
            {
                **before.body,
                "EndpointConfigName": fake.requests("UpdateEndpoint")[0]["EndpointConfigName"],
            }
        ),
    )
    predictor.update_endpoint(initial_instance_count=3)
    (made,) = fake.requests("CreateEndpointConfig")
    (updated,) = fake.requests("UpdateEndpoint")
    assert made["ProductionVariants"][0]["InitialInstanceCount"] == 3
    assert made["ProductionVariants"][0]["InstanceType"] == "ml.m5.large"
    assert made["ProductionVariants"][0]["ModelName"] == "e-model"
    assert updated == {"EndpointName": "e", "EndpointConfigName": made["EndpointConfigName"]}


def test_an_update_that_was_rolled_back_is_a_failure(fake: Any, predictor: Predictor) -> None:
    view = {"name": "e", "status": "InService", "failure_reason": "out of memory"}
    fake.endpoint("e", view)
    with pytest.raises(DeployFailed, match="rolled back: out of memory"):
        predictor.update_endpoint(instance_type="ml.m5.xlarge")


def test_update_of_several_variants_needs_no_guess(
    fake: Any, predictor: Predictor, sdk_tools: Any
) -> None:
    fake.endpoint("e")
    config = fake.rules["DescribeEndpointConfig"][0].body
    variants = [{**config["ProductionVariants"][0], "VariantName": name} for name in "ab"]
    fake.rules["DescribeEndpointConfig"] = sdk_tools.Reply(
        {**config, "ProductionVariants": variants}
    )
    with pytest.raises(InvalidInput, match="2 variants"):
        predictor.update_endpoint(model_name="other")
    assert not fake.requests("CreateEndpointConfig")


def test_errors_of_other_calls_have_classes_too(
    fake: Any, predictor: Predictor, sdk_tools: Any
) -> None:
    fake.endpoint("e")
    fake.rules["CreateEndpointConfig"] = sdk_tools.aws_error(
        "ValidationException", "Cannot create already existing endpoint configuration"
    )
    with pytest.raises(AlreadyExists):
        predictor.update_endpoint(initial_instance_count=2)


def test_a_full_queue(fake: Any, predictor: Predictor, sdk_tools: Any) -> None:
    """Carried by the body of one event, where the status was sent long before."""
    body = json.dumps({"error": {"message": "full", "code": "Overloaded"}}).encode()
    fake.rules[INVOKE] = sdk_tools.Reply(body)
    with pytest.raises(Overloaded):
        predictor.chat("x")
