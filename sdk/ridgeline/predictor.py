"""One endpoint, as an object: ask it, change it, delete it. Names as in SageMaker's SDK.

Goes through InvokeEndpoint and its kin only, so it works on any service behind that API. What the
bodies mean is the serializers' business, and ``_chat``'s for text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

from ridgeline import _chat
from ridgeline._endpoints import Parts, describe, parts, simulated
from ridgeline._names import unique_name
from ridgeline._waiting import wait_for_endpoint
from ridgeline.async_inference import AsyncResult, split_s3
from ridgeline.deserializers import BaseDeserializer, JSONDeserializer
from ridgeline.errors import InvalidInput, NotFound
from ridgeline.serializers import BaseSerializer, JSONSerializer
from ridgeline.session import Session

_COPIED_FROM_CONFIG = (
    "AsyncInferenceConfig",
    "DataCaptureConfig",
    "ExecutionRoleArn",
    "ExplainerConfig",
    "KmsKeyId",
    "ShadowProductionVariants",
    "VpcConfig",
)


class Predictor:
    """Endpoint ``endpoint_name`` of a service. Sends and reads JSON unless told otherwise."""

    def __init__(
        self,
        endpoint_name: str,
        sagemaker_session: Session | None = None,
        serializer: BaseSerializer | None = None,
        deserializer: BaseDeserializer | None = None,
    ) -> None:
        self.endpoint_name = endpoint_name
        self.sagemaker_session = sagemaker_session or Session()
        self.serializer = serializer or JSONSerializer()
        self.deserializer = deserializer or JSONDeserializer()
        self._known_parts: Parts | None = None

    def __repr__(self) -> str:
        return f"Predictor({self.endpoint_name!r})"

    def predict(
        self,
        data: Any,
        initial_args: Mapping[str, Any] | None = None,
        target_model: str | None = None,
        target_variant: str | None = None,
        inference_id: str | None = None,
        custom_attributes: str | None = None,
        component_name: str | None = None,
    ) -> Any:
        """Ask once; the answer as the deserializer reads it.

        Raises InvocationFailed if the model answers with an error, Overloaded if its queue is
        full, NotFound if there is no such endpoint.
        """
        request = self._request(
            self._serialize(data, initial_args),
            initial_args,
            TargetModel=target_model,
            TargetVariant=target_variant,
            InferenceId=inference_id,
            CustomAttributes=custom_attributes,
            InferenceComponentName=component_name,
        )
        body, content_type = self._invoke(request)
        return self.deserializer.deserialize(body, content_type)

    def stream(
        self,
        data: Any,
        initial_args: Mapping[str, Any] | None = None,
        target_variant: str | None = None,
        inference_id: str | None = None,
        custom_attributes: str | None = None,
    ) -> Iterator[bytes]:
        """Ask once; the parts of the answer as the model writes them.

        Leaving the loop early closes the connection, which ends the generation.
        """
        request = self._request(
            self._serialize(data, initial_args),
            initial_args,
            TargetVariant=target_variant,
            InferenceId=inference_id,
            CustomAttributes=custom_attributes,
        )
        return self._stream(request)

    @overload
    def chat(
        self,
        messages: str | Sequence[_chat.Message],
        *,
        stream: Literal[False] = False,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> str: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[_chat.Message],
        *,
        stream: Literal[True],
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> Iterator[str]: ...

    def chat(
        self,
        messages: str | Sequence[_chat.Message],
        *,
        stream: bool = False,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> str | Iterator[str]:
        """Talk to a language model: one string, or messages with ``role`` and ``content``.

        Returns the text of the answer; with ``stream``, an iterator of its pieces as they come.
        ``extra_body`` holds members of the request that have no argument here.
        """
        options = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stop": [stop] if isinstance(stop, str) else stop and list(stop),
            **(extra_body or {}),
        }
        request: dict[str, Any] = {
            "EndpointName": self.endpoint_name,
            "ContentType": "application/json",
            "Body": _chat.chat_body(messages, system=system, stream=stream, options=options),
        }
        if stream:
            return _chat.streamed_text(self._stream(request))
        request["Accept"] = "application/json"
        return _chat.whole_text(self._invoke(request)[0])

    def predict_async(
        self,
        data: Any = None,
        input_path: str | None = None,
        initial_args: Mapping[str, Any] | None = None,
        inference_id: str | None = None,
    ) -> AsyncResult:
        """Queue a request; ``data`` is uploaded first (to ``input_path`` if both are given).

        The endpoint must have been deployed with an ``async_inference_config``.
        """
        if data is None and input_path is None:
            raise InvalidInput("predict_async needs data or input_path.")
        session = self.sagemaker_session
        if data is not None:
            body = self._serialize(data, initial_args)
            if input_path is None:
                bucket = session.default_bucket()
                key = f"async-endpoint-inputs/{unique_name(self.endpoint_name, session.clock)}"
            else:
                bucket, key = split_s3(input_path)
            input_path = session.upload_bytes(body, bucket, key, self.serializer.content_type)
        request: dict[str, Any] = {
            "EndpointName": self.endpoint_name,
            "InputLocation": input_path,
            "Accept": ", ".join(self.deserializer.accept),
            **({"InferenceId": inference_id} if inference_id else {}),
            **(initial_args or {}),
        }
        with session.call():
            answer = session.sagemaker_runtime_client.invoke_endpoint_async(**request)
        return AsyncResult(
            session,
            output_path=str(answer["OutputLocation"]),
            failure_path=answer.get("FailureLocation"),
            inference_id=str(answer.get("InferenceId", "")),
            read=self.deserializer.deserialize,
        )

    def simulated(self) -> list[Mapping[str, Any]]:
        """What each ready replica stands for on a simulated device: predicted times with their
        intervals, memory of a core by kind, price. Empty where nothing is simulated."""
        return [dict(one) for one in simulated(self.sagemaker_session, self.endpoint_name)]

    def update_endpoint(
        self,
        initial_instance_count: int | None = None,
        instance_type: str | None = None,
        model_name: str | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        wait: bool = True,
    ) -> None:
        """Replace what the endpoint runs without a failed request; what is not given stays.

        Raises DeployFailed if the new version is bad: the old one then goes on serving. An
        endpoint of several variants is changed in all of them, except for the model.
        """
        session = self.sagemaker_session
        old_name = str(describe(session, self.endpoint_name)["EndpointConfigName"])
        with session.call():
            old = session.sagemaker_client.describe_endpoint_config(EndpointConfigName=old_name)
        variants = [dict(variant) for variant in old["ProductionVariants"]]
        if model_name is not None and len(variants) > 1:
            raise InvalidInput(
                f"Endpoint {self.endpoint_name!r} has {len(variants)} variants, so model_name "
                "does not say which one to change.",
                hint="Create an endpoint configuration and call UpdateEndpoint by boto3.",
            )
        for variant in variants:
            changes = {
                "InitialInstanceCount": initial_instance_count,
                "InstanceType": instance_type,
                "ModelName": model_name,
            }
            variant.update((name, value) for name, value in changes.items() if value is not None)
        new_name = unique_name(self.endpoint_name, session.clock)
        request: dict[str, Any] = {
            "EndpointConfigName": new_name,
            "ProductionVariants": variants,
            **{name: old[name] for name in _COPIED_FROM_CONFIG if old.get(name)},
        }
        if tags:
            request["Tags"] = [dict(tag) for tag in tags]
        with session.call():
            session.sagemaker_client.create_endpoint_config(**request)
            session.sagemaker_client.update_endpoint(
                EndpointName=self.endpoint_name, EndpointConfigName=new_name
            )
        self._known_parts = None
        if wait:
            title = f"Updating endpoint {self.endpoint_name}"
            wait_for_endpoint(session, self.endpoint_name, title=title, config=new_name)

    def delete_endpoint(self, delete_endpoint_config: bool = True) -> None:
        """Delete the endpoint, and its configuration unless told not to; models stay.

        ``delete_model`` still knows afterwards which models those were.
        """
        session = self.sagemaker_session
        found = self._parts()
        with session.call():
            session.sagemaker_client.delete_endpoint(EndpointName=self.endpoint_name)
        if delete_endpoint_config and found.config:
            try:
                with session.call():
                    session.sagemaker_client.delete_endpoint_config(EndpointConfigName=found.config)
            except NotFound:
                # Gone already: that is what was asked for.
                pass
            self._known_parts = replace(found, config="")

    def delete_model(self) -> None:
        """Delete the models that the endpoint runs, or ran when it was deleted."""
        session = self.sagemaker_session
        for model in self._parts().models:
            try:
                with session.call():
                    session.sagemaker_client.delete_model(ModelName=model)
            except NotFound:
                # Gone already: that is what was asked for.
                pass

    def _parts(self) -> Parts:
        if self._known_parts is None:
            self._known_parts = parts(self.sagemaker_session, self.endpoint_name)
        return self._known_parts

    def _serialize(self, data: Any, initial_args: Mapping[str, Any] | None) -> bytes:
        """The body; bytes that come with a content type of their own are taken as they are."""
        if isinstance(data, bytes) and "ContentType" in (initial_args or {}):
            return data
        return self.serializer.serialize(data)

    def _request(
        self, body: bytes, initial_args: Mapping[str, Any] | None, **members: str | None
    ) -> dict[str, Any]:
        return {
            "EndpointName": self.endpoint_name,
            "Body": body,
            "ContentType": self.serializer.content_type,
            "Accept": ", ".join(self.deserializer.accept),
            **{name: value for name, value in members.items() if value is not None},
            **(initial_args or {}),
        }

    def _invoke(self, request: Mapping[str, Any]) -> tuple[bytes, str]:
        session = self.sagemaker_session
        with session.call():
            answer = session.sagemaker_runtime_client.invoke_endpoint(**request)
            return answer["Body"].read(), str(answer.get("ContentType", ""))

    def _stream(self, request: Mapping[str, Any]) -> Iterator[bytes]:
        session = self.sagemaker_session
        with session.call():
            client = session.sagemaker_runtime_client
            events = client.invoke_endpoint_with_response_stream(**request)["Body"]
        return self._payloads(events)

    def _payloads(self, events: Any) -> Iterator[bytes]:
        """The payloads of an event stream; closes it however the loop over them ends."""
        try:
            with self.sagemaker_session.call():
                for event in events:
                    part = event.get("PayloadPart")
                    if part is not None:
                        yield part["Bytes"]
        finally:
            events.close()
