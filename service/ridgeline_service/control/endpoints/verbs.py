"""Endpoints: Create, Describe, List, Update, UpdateWeightsAndCapacities, Delete.

A verb writes what is wanted and returns; the reconcilers bring it about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.capacities import change_in_place, in_progress
from ridgeline_service.control.endpoints.configs import CONFIG_WORDS
from ridgeline_service.control.endpoints.describing import describe, summary
from ridgeline_service.control.endpoints.planning import Plan, Planner
from ridgeline_service.control.endpoints.progress import progress_of
from ridgeline_service.control.endpoints.rollouts import check_deployment_config, rollback_alarms
from ridgeline_service.control.listing import (
    bad_token_refused,
    list_filter,
    tags_in,
    with_token,
)
from ridgeline_service.control.named import NamedVerbs, already_exists, could_not_find
from ridgeline_service.control.names import ENDPOINT, ENDPOINT_CONFIG, MODEL
from ridgeline_service.errors import ValidationException
from ridgeline_service.store import endpoints as rows
from ridgeline_service.store import journal, replicas
from ridgeline_service.store.alarms import get_alarm
from ridgeline_service.store.records import (
    DeploymentRecord,
    Document,
    EndpointRecord,
    StoredRequest,
    VariantSpec,
)
from ridgeline_service.store.resources import ENDPOINT_CONFIGS, MODELS
from ridgeline_service.store.states import Desired, EndpointStatus, Reason

WARNING_TAG = "ridgeline:warning"

_UPDATABLE = (EndpointStatus.IN_SERVICE, EndpointStatus.FAILED)


class Endpoints:
    """The endpoint verbs of the SageMaker API."""

    def __init__(self, context: Context, planner: Planner) -> None:
        self._context = context
        self._planner = planner
        self._models = NamedVerbs(context, MODELS, kind=MODEL, words="model")
        self._configs = NamedVerbs(
            context, ENDPOINT_CONFIGS, kind=ENDPOINT_CONFIG, words=CONFIG_WORDS
        )

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context, name, tags = self._context, request["EndpointName"], tags_in(request)
        arn = context.arns.of(ENDPOINT, name)
        with context.db.read() as connection:
            if rows.get_endpoint(connection, arn) is not None:
                raise already_exists("endpoint", arn)
            config, models = self._resolve(connection, request["EndpointConfigName"])
            _check_alarms(connection, request.get("DeploymentConfig"))
        plan = self._planner.plan(config, models)
        check_deployment_config(request.get("DeploymentConfig"), plan.variants)
        now = context.now()
        deployment = self._deployment(arn, config, plan.variants)
        endpoint = EndpointRecord(
            arn=arn,
            name=name,
            created_at=now,
            modified_at=now,
            status=EndpointStatus.CREATING,
            reason=Reason.REQUESTED,
            failure_reason="",
            desired=Desired.RUNNING,
            active_deployment=None,
            pending_deployment=deployment.id,
            deployment_config=request.get("DeploymentConfig"),
        )
        try:
            with context.db.write() as connection:
                rows.add_endpoint(connection, endpoint)
                rows.add_deployment(connection, deployment)
                journal.put_tags(connection, arn, {**tags, **_warning_tag(plan)})
                context.event(connection, arn, EndpointStatus.CREATING, Reason.REQUESTED)
                self._warn(connection, arn, plan)
        except IntegrityError as error:
            raise already_exists("endpoint", arn) from error
        context.changed()
        return {"EndpointArn": arn}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            endpoint = self._find(connection, request["EndpointName"])
            return describe(
                endpoint,
                _deployment_of(connection, endpoint.active_deployment),
                _deployment_of(connection, endpoint.pending_deployment),
                replicas.replicas_of(connection, endpoint.arn),
            )

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with bad_token_refused(), self._context.db.read() as connection:
            records, token = rows.page_endpoints(connection, list_filter(request))
        return with_token({"Endpoints": [summary(record) for record in records]}, token)

    def stages(self, name: str) -> dict[str, Any]:
        """How far an endpoint is, replica by replica, for the ``/api`` of the service."""
        with self._context.db.read() as connection:
            endpoint = self._find(connection, name)
            return progress_of(
                endpoint,
                _deployment_of(connection, endpoint.pending_deployment)
                or _deployment_of(connection, endpoint.active_deployment),
                replicas.replicas_of(connection, endpoint.arn),
                self._context.data_dir,
                self._context.now(),
            )

    def update(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Blue/green: the deployment that serves goes on until the new one is ready, and then the
        traffic goes over as DeploymentConfig says."""
        context = self._context
        with context.db.read() as connection:
            endpoint = self._find(connection, request["EndpointName"])
            _check_updatable(endpoint)
            config, models = self._resolve(connection, request["EndpointConfigName"])
            active = _deployment_of(connection, endpoint.active_deployment)
            deployment_config = _deployment_config(request, endpoint)
            _check_alarms(connection, deployment_config)
        serving = endpoint.status is EndpointStatus.IN_SERVICE
        plan = self._planner.plan(
            config, models, beside=active.variants if active is not None and serving else ()
        )
        variants = _retained(plan.variants, active, request)
        check_deployment_config(deployment_config, variants)
        deployment = self._deployment(endpoint.arn, config, variants)
        changes = rows.EndpointChanges(
            status=EndpointStatus.UPDATING,
            reason=Reason.REQUESTED,
            failure_reason="",
            pending_deployment=deployment.id,
            deployment_config=deployment_config,
            modified_at=context.now(),
        )
        if endpoint.status is EndpointStatus.FAILED:
            changes["active_deployment"] = None
        with context.db.write() as connection:
            self._find_updatable(connection, endpoint.name)
            rows.add_deployment(connection, deployment)
            rows.change_endpoint(connection, endpoint.arn, **changes)
            journal.remove_tags(connection, endpoint.arn, [WARNING_TAG])
            journal.put_tags(connection, endpoint.arn, _warning_tag(plan))
            context.event(connection, endpoint.arn, EndpointStatus.UPDATING, Reason.REQUESTED)
            self._warn(connection, endpoint.arn, plan)
        context.changed()
        return {"EndpointArn": endpoint.arn}

    def update_weights_and_capacities(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """In place: weights count at once, replicas are added or drained."""
        context = self._context
        with context.db.write() as connection:
            endpoint = self._find(connection, request["EndpointName"], for_update=True)
            wanted = request["DesiredWeightsAndCapacities"]
            change_in_place(context, self._planner, connection, endpoint, wanted)
        context.changed()
        return {"EndpointArn": endpoint.arn}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """In any state; again while it is being deleted is no error."""
        context = self._context
        with context.db.write() as connection:
            endpoint = self._find(connection, request["EndpointName"], for_update=True)
            if endpoint.status is EndpointStatus.DELETING:
                return {}
            rows.change_endpoint(
                connection,
                endpoint.arn,
                status=EndpointStatus.DELETING,
                reason=Reason.REQUESTED,
                desired=Desired.STOPPED,
                modified_at=context.now(),
            )
            context.event(connection, endpoint.arn, EndpointStatus.DELETING, Reason.REQUESTED)
        context.changed()
        return {}

    def _find(
        self, connection: Connection, name: str, *, for_update: bool = False
    ) -> EndpointRecord:
        arn = self._context.arns.of(ENDPOINT, name)
        endpoint = rows.get_endpoint(connection, arn, for_update=for_update)
        if endpoint is None:
            raise could_not_find("endpoint", arn)
        return endpoint

    def _find_updatable(self, connection: Connection, name: str) -> None:
        _check_updatable(self._find(connection, name, for_update=True))

    def _resolve(
        self, connection: Connection, config_name: str
    ) -> tuple[StoredRequest, dict[str, StoredRequest]]:
        config = self._configs.find(connection, config_name)
        names = {variant["ModelName"] for variant in config.request["ProductionVariants"]}
        return config, {name: self._models.find(connection, name) for name in names}

    def _deployment(
        self, arn: str, config: StoredRequest, variants: tuple[VariantSpec, ...]
    ) -> DeploymentRecord:
        return DeploymentRecord(
            id=self._context.ids(),
            endpoint_arn=arn,
            created_at=self._context.now(),
            config_name=config.name,
            config=config.request,
            variants=variants,
        )

    def _warn(self, connection: Connection, arn: str, plan: Plan) -> None:
        for warning in plan.warnings:
            self._context.event(connection, arn, "Warning", message=warning)


def _deployment_of(connection: Connection, deployment_id: str | None) -> DeploymentRecord | None:
    return None if deployment_id is None else rows.get_deployment(connection, deployment_id)


def _check_updatable(endpoint: EndpointRecord) -> None:
    if endpoint.status not in _UPDATABLE:
        raise in_progress(endpoint)


def _check_alarms(connection: Connection, config: Document | None) -> None:
    """Raises ValidationException for a rollback alarm that is not there."""
    for name in rollback_alarms(config):
        if not name:
            raise ValidationException("AutoRollbackConfiguration: an alarm lacks its AlarmName.")
        if get_alarm(connection, name) is None:
            raise ValidationException(
                f"AutoRollbackConfiguration: alarm {name!r} is not found.",
                hint="PutMetricAlarm makes it.",
            )


def _deployment_config(request: Mapping[str, Any], endpoint: EndpointRecord) -> Document | None:
    if not request.get("RetainDeploymentConfig"):
        return request.get("DeploymentConfig")
    if "DeploymentConfig" in request:
        raise ValidationException(
            "DeploymentConfig is given and RetainDeploymentConfig is true: they exclude each other."
        )
    return endpoint.deployment_config


def _retained(
    variants: tuple[VariantSpec, ...],
    active: DeploymentRecord | None,
    request: Mapping[str, Any],
) -> tuple[VariantSpec, ...]:
    """The variants with weights and counts as they are now, where the update asks for it."""
    if not request.get("RetainAllVariantProperties") or active is None:
        return variants
    excluded = {
        item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", ())
    }
    kept = []
    for variant in variants:
        former = active.variant(variant.name)
        if former is not None and "DesiredWeight" not in excluded:
            variant = replace(variant, weight=former.weight)
        if former is not None and "DesiredInstanceCount" not in excluded:
            variant = replace(variant, count=former.count, deployed_count=former.count)
        kept.append(variant)
    return tuple(kept)


def _warning_tag(plan: Plan) -> dict[str, str]:
    return {WARNING_TAG: "; ".join(plan.warnings)[:256]} if plan.warnings else {}
