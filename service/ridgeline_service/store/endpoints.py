"""Endpoints and their deployments: the queries. Knows no rule of their lives."""

from __future__ import annotations

from typing import TypedDict, Unpack

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from ridgeline_service.store.records import (
    DeploymentRecord,
    Document,
    EndpointRecord,
    VariantSpec,
)
from ridgeline_service.store.resources import ListFilter, page_rows
from ridgeline_service.store.states import Desired, EndpointStatus, Reason
from ridgeline_service.store.tables import deployments, endpoints


class EndpointChanges(TypedDict, total=False):
    modified_at: int
    status: EndpointStatus
    reason: Reason
    failure_reason: str
    desired: Desired
    active_deployment: str | None
    pending_deployment: str | None
    deployment_config: Document | None
    traffic_step: int
    traffic_at: int


def add_endpoint(connection: Connection, record: EndpointRecord) -> None:
    """Raises sqlalchemy's IntegrityError if the name is taken."""
    connection.execute(insert(endpoints), dict(record.__dict__))


def get_endpoint(
    connection: Connection, arn: str, *, for_update: bool = False
) -> EndpointRecord | None:
    """``for_update`` keeps others from changing it until the transaction ends."""
    statement = select(endpoints).where(endpoints.c.arn == arn)
    if for_update:
        statement = statement.with_for_update()  # SQLite's transaction already excludes writers
    row = connection.execute(statement).mappings().first()
    return None if row is None else _endpoint(row)


def all_endpoints(connection: Connection) -> list[EndpointRecord]:
    return [_endpoint(row) for row in connection.execute(select(endpoints)).mappings()]


def page_endpoints(
    connection: Connection, wanted: ListFilter
) -> tuple[list[EndpointRecord], str | None]:
    rows, token = page_rows(connection, endpoints, wanted)
    return [_endpoint(row) for row in rows], token


def change_endpoint(connection: Connection, arn: str, **changes: Unpack[EndpointChanges]) -> None:
    connection.execute(update(endpoints).where(endpoints.c.arn == arn).values(**changes))


def delete_endpoint(connection: Connection, arn: str) -> None:
    """The endpoint with all its deployments and replicas."""
    connection.execute(delete(endpoints).where(endpoints.c.arn == arn))


def add_deployment(connection: Connection, record: DeploymentRecord) -> None:
    connection.execute(
        insert(deployments),
        {
            "id": record.id,
            "endpoint_arn": record.endpoint_arn,
            "created_at": record.created_at,
            "config_name": record.config_name,
            "config": dict(record.config),
            "variants": [variant.to_json() for variant in record.variants],
            "task": record.task,
        },
    )


def get_deployment(connection: Connection, deployment_id: str) -> DeploymentRecord | None:
    statement = select(deployments).where(deployments.c.id == deployment_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else _deployment(row)


def deployments_of(connection: Connection, arn: str) -> list[DeploymentRecord]:
    """Oldest first."""
    statement = (
        select(deployments)
        .where(deployments.c.endpoint_arn == arn)
        .order_by(deployments.c.created_at, deployments.c.id)
    )
    return [_deployment(row) for row in connection.execute(statement).mappings()]


def all_deployments(connection: Connection) -> list[DeploymentRecord]:
    return [_deployment(row) for row in connection.execute(select(deployments)).mappings()]


def change_variants(
    connection: Connection, deployment_id: str, variants: tuple[VariantSpec, ...]
) -> None:
    connection.execute(
        update(deployments)
        .where(deployments.c.id == deployment_id)
        .values(variants=[variant.to_json() for variant in variants])
    )


def change_task(connection: Connection, deployment_id: str, task: str) -> None:
    connection.execute(
        update(deployments).where(deployments.c.id == deployment_id).values(task=task)
    )


def delete_deployment(connection: Connection, deployment_id: str) -> None:
    connection.execute(delete(deployments).where(deployments.c.id == deployment_id))


def _endpoint(row: RowMapping) -> EndpointRecord:
    return EndpointRecord(
        arn=row["arn"],
        name=row["name"],
        created_at=row["created_at"],
        modified_at=row["modified_at"],
        status=EndpointStatus(row["status"]),
        reason=Reason(row["reason"]),
        failure_reason=row["failure_reason"],
        desired=Desired(row["desired"]),
        active_deployment=row["active_deployment"],
        pending_deployment=row["pending_deployment"],
        deployment_config=row["deployment_config"],
        traffic_step=row["traffic_step"],
        traffic_at=row["traffic_at"],
    )


def _deployment(row: RowMapping) -> DeploymentRecord:
    return DeploymentRecord(
        id=row["id"],
        endpoint_arn=row["endpoint_arn"],
        created_at=row["created_at"],
        config_name=row["config_name"],
        config=row["config"],
        variants=tuple(VariantSpec.from_json(raw) for raw in row["variants"]),
        task=row["task"],
    )
