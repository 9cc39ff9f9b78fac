"""Endpoint configs: Create with all checks that need no machine, Describe, List, Delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.listing import (
    bad_token_refused,
    list_filter,
    tags_in,
    with_token,
)
from ridgeline_service.control.named import NamedVerbs
from ridgeline_service.control.names import ENDPOINT_CONFIG, MODEL, to_datetime
from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.profiles import is_instance_type, nearest_types
from ridgeline_service.store.records import StoredRequest
from ridgeline_service.store.resources import ENDPOINT_CONFIGS, MODELS

CONFIG_WORDS = "endpoint configuration"


class EndpointConfigs:
    """The endpoint-config verbs of the SageMaker API."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._models = NamedVerbs(context, MODELS, kind=MODEL, words="model")
        self._named = NamedVerbs(
            context, ENDPOINT_CONFIGS, kind=ENDPOINT_CONFIG, words=CONFIG_WORDS
        )

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        _check(request)
        for variant in request["ProductionVariants"]:
            self._models.get(variant["ModelName"])
        arn = self._named.create(request["EndpointConfigName"], request, tags_in(request))
        return {"EndpointConfigArn": arn}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        record = self._named.get(request["EndpointConfigName"])
        variants = [
            {"InitialVariantWeight": 1.0, **variant}
            for variant in record.request["ProductionVariants"]
        ]
        return {
            "EnableNetworkIsolation": False,
            **record.request,
            "ProductionVariants": variants,
            "EndpointConfigArn": record.arn,
            "CreationTime": to_datetime(record.created_at),
        }

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with bad_token_refused(), self._context.db.read() as connection:
            records, token = ENDPOINT_CONFIGS.page(connection, list_filter(request))
        return with_token({"EndpointConfigs": [_summary(record) for record in records]}, token)

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Endpoints that were made from the config keep their copy of it."""
        self._named.delete(request["EndpointConfigName"])
        return {}


def _check(request: Mapping[str, Any]) -> None:
    variants: Sequence[Mapping[str, Any]] = request["ProductionVariants"]
    _check_instance_types(variants)
    if request.get("ShadowProductionVariants"):
        raise ValidationException(
            "ShadowProductionVariants are not supported by this service.",
            hint="Deploy the shadow model as an endpoint of its own.",
        )
    if request.get("ExplainerConfig"):
        raise ValidationException(
            "ExplainerConfig is not supported by this service: nothing is explained.",
            hint="Leave it out.",
        )
    capture = request.get("DataCaptureConfig")
    if capture and not str(capture.get("DestinationS3Uri", "")).startswith("s3://"):
        raise ValidationException(
            f"DestinationS3Uri is {capture.get('DestinationS3Uri')!r}, which is no S3 URI."
        )
    names = [variant["VariantName"] for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ValidationException(
                f"Variant names must be unique, but {name!r} is given {names.count(name)} times."
            )
    for variant in variants:
        _check_variant(variant)
    if all(variant.get("InitialVariantWeight", 1.0) == 0 for variant in variants):
        raise ValidationException(
            "InitialVariantWeight is 0 for every variant: at least one must take traffic."
        )
    serverless = [variant for variant in variants if "ServerlessConfig" in variant]
    if serverless and len(serverless) < len(variants):
        raise ValidationException(
            "Serverless and instance-based variants cannot be mixed in one endpoint configuration."
        )
    if "AsyncInferenceConfig" in request:
        _check_async(request["AsyncInferenceConfig"], serverless=bool(serverless))


def _check_variant(variant: Mapping[str, Any]) -> None:
    name = variant["VariantName"]
    if not variant.get("ModelName"):
        raise ValidationException(
            f"Variant {name!r} names no ModelName; inference components are not supported."
        )
    if variant.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED":
        raise ValidationException(
            f"Variant {name!r} has ManagedInstanceScaling, which is not supported by this service.",
            hint="Leave it out, and set InitialInstanceCount.",
        )
    if "ServerlessConfig" in variant:
        extra = [key for key in ("InstanceType", "InitialInstanceCount") if key in variant]
        if extra:
            raise ValidationException(
                f"Variant {name!r} has ServerlessConfig and {' and '.join(extra)}. "
                "Provide either ServerlessConfig or instance fields."
            )
        memory = variant["ServerlessConfig"]["MemorySizeInMB"]
        if memory % 1024:
            raise ValidationException(
                f"MemorySizeInMB of variant {name!r} is {memory}; it must be a multiple of 1024."
            )
        return
    missing = [key for key in ("InstanceType", "InitialInstanceCount") if not variant.get(key)]
    if missing:
        raise ValidationException(
            f"Variant {name!r} lacks {' and '.join(missing)}. Provide them, or ServerlessConfig."
        )


def _check_instance_types(variants: Sequence[Mapping[str, Any]]) -> None:
    """In SageMaker's words, but with the nearest types in place of hundreds."""
    faults = []
    for index, variant in enumerate(variants, start=1):
        name = variant.get("InstanceType")
        if name and not is_instance_type(name):
            faults.append(
                f"Value '{name[:100]}' at 'productionVariants.{index}.member.instanceType' failed "
                "to satisfy constraint: Member must satisfy enum value set: "
                f"[{', '.join(nearest_types(name))}, ...]"
            )
    if faults:
        many = "s" if len(faults) > 1 else ""
        raise ValidationException(
            f"{len(faults)} validation error{many} detected: {'; '.join(faults[:10])}"
        )


def _check_async(config: Mapping[str, Any], *, serverless: bool) -> None:
    if serverless:
        raise ValidationException(
            "AsyncInferenceConfig cannot be combined with serverless variants."
        )
    output = config["OutputConfig"]
    if output.get("NotificationConfig"):
        raise ValidationException(
            "AsyncInferenceConfig: NotificationConfig is not supported by this service: it has no "
            "SNS, and would notify nobody.",
            hint="Leave it out, and look for the result at the OutputLocation that "
            "InvokeEndpointAsync answers, or for an error at its FailureLocation.",
        )
    for key in ("S3OutputPath", "S3FailurePath"):
        path = output.get(key)
        if path is not None and not path.startswith("s3://"):
            raise ValidationException(f"AsyncInferenceConfig: {key} {path!r} is no S3 URI.")
    if not output.get("S3OutputPath"):
        raise ValidationException("AsyncInferenceConfig: OutputConfig lacks S3OutputPath.")


def _summary(record: StoredRequest) -> dict[str, Any]:
    return {
        "EndpointConfigName": record.name,
        "EndpointConfigArn": record.arn,
        "CreationTime": to_datetime(record.created_at),
    }
