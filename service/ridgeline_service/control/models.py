"""Models: Create, Describe, List, Delete. A model is a name for a container; nothing runs yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.listing import (
    bad_token_refused,
    list_filter,
    tags_in,
    with_token,
)
from ridgeline_service.control.named import NamedVerbs
from ridgeline_service.control.names import MODEL, to_datetime
from ridgeline_service.errors import ValidationException
from ridgeline_service.store.records import StoredRequest
from ridgeline_service.store.resources import MODELS


class Models:
    """The model verbs of the SageMaker API."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._named = NamedVerbs(context, MODELS, kind=MODEL, words="model")

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "PrimaryContainer" in request and "Containers" in request:
            raise ValidationException(
                "Both PrimaryContainer and Containers are given. Provide one of them."
            )
        containers = containers_of(request)
        if not containers:
            raise ValidationException(
                "Neither PrimaryContainer nor Containers is given. Provide one of them."
            )
        for container in containers:
            _check_container(container)
        return {"ModelArn": self._named.create(request["ModelName"], request, tags_in(request))}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        record = self._named.get(request["ModelName"])
        return {
            "EnableNetworkIsolation": False,
            **record.request,
            "ModelArn": record.arn,
            "CreationTime": to_datetime(record.created_at),
        }

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with bad_token_refused(), self._context.db.read() as connection:
            records, token = MODELS.page(connection, list_filter(request))
        return with_token({"Models": [_summary(record) for record in records]}, token)

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Endpoints that run the model keep their copy of it."""
        self._named.delete(request["ModelName"])
        return {}


def containers_of(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    primary = request.get("PrimaryContainer")
    return [primary] if primary is not None else list(request.get("Containers") or ())


def _check_container(container: Mapping[str, Any]) -> None:
    if not container.get("Image") and not container.get("ModelPackageName"):
        raise ValidationException(
            "A container names neither Image nor ModelPackageName. Provide one of them."
        )
    if container.get("ModelDataUrl") and container.get("ModelDataSource"):
        raise ValidationException(
            "Both ModelDataUrl and ModelDataSource are given for a container. Provide one of them."
        )


def _summary(record: StoredRequest) -> dict[str, Any]:
    return {
        "ModelName": record.name,
        "ModelArn": record.arn,
        "CreationTime": to_datetime(record.created_at),
    }
