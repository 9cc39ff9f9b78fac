"""Tuning jobs: Create, Describe, List, Stop, Delete, and the list of their training jobs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.control.jobs.planning import JobPlanner
from ridgeline_service.control.listing import bad_token_refused, list_filter, tags_in, with_token
from ridgeline_service.control.names import TUNING_JOB
from ridgeline_service.control.tuning.describing import (
    IDENTICAL,
    describe,
    trial_summary,
    tuning_summary,
)
from ridgeline_service.control.tuning.ranges import Dimension
from ridgeline_service.control.tuning.spec import Definition, TuningSpec, spec_of
from ridgeline_service.control.tuning.trials import training_request, trial_name
from ridgeline_service.errors import ResourceInUse, ResourceNotFound, ValidationException
from ridgeline_service.store import journal
from ridgeline_service.store import tuning_jobs as rows
from ridgeline_service.store.paging import Order
from ridgeline_service.store.states import Desired
from ridgeline_service.store.tuning_records import TrialRecord, TuningRecord, TuningStatus

_CODE_CHANNELS = ("code", "sm_drivers")
_TRIAL_COLUMNS = {
    "Name": "name",
    "CreationTime": "created_at",
    "Status": "status",
    "FinalObjectiveMetricValue": "objective",
}


class TuningJobs:
    """The tuning job verbs of the SageMaker API."""

    def __init__(self, context: Context, planner: JobPlanner) -> None:
        self._context = context
        self._planner = planner

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context, name, tags = (
            self._context,
            request["HyperParameterTuningJobName"],
            tags_in(request),
        )
        arn = context.arns.of(TUNING_JOB, name)
        request = self._with_metrics_of_parents(request)
        spec = spec_of(request)
        for definition in spec.definitions:
            # What a training job would be refused for, the tuning job is refused for now.
            sample = {each.name: _example(each) for each in definition.dimensions}
            self._planner.plan(training_request(definition, trial_name(name, 1, "0"), sample))
        seed = request["HyperParameterTuningJobConfig"].get("RandomSeed")
        with context.db.read() as connection:
            if rows.get_tuning(connection, arn) is not None:
                raise _taken(arn)
            history = self._history(connection, request, spec)
        now = context.now()
        tuning = TuningRecord(
            arn=arn,
            name=name,
            created_at=now,
            modified_at=now,
            status=TuningStatus.IN_PROGRESS,
            cause="",
            failure_reason="",
            desired=Desired.RUNNING,
            request={key: value for key, value in request.items() if key != "Tags"},
            seed=secrets.randbits(32) if seed is None else seed,
            tags=tags,
            history=history,
        )
        try:
            with context.db.write() as connection:
                rows.add_tuning(connection, tuning)
                journal.put_tags(connection, arn, tags)
                context.event(connection, arn, "Created")
        except IntegrityError as error:
            raise _taken(arn) from error
        context.changed()
        return {"HyperParameterTuningJobArn": arn}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            tuning = self._find(connection, request)
            trials = rows.trials_of(connection, tuning.arn)
        return describe(tuning, trials, self._context.now())

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted = list_filter(request)
        with bad_token_refused(), self._context.db.read() as connection:
            tunings, token = rows.page_tunings(connection, wanted)
            found = [
                tuning_summary(tuning, rows.trials_of(connection, tuning.arn)) for tuning in tunings
            ]
        return with_token({"HyperParameterTuningJobSummaries": found}, token)

    def list_training_jobs(self, request: Mapping[str, Any]) -> dict[str, Any]:
        order = Order(
            key=_TRIAL_COLUMNS[request.get("SortBy", "Name")],
            descending=request.get("SortOrder", "Ascending") == "Descending",
        )
        wanted = replace(list_filter({**request, "SortBy": "Name"}), order=order)
        with bad_token_refused(), self._context.db.read() as connection:
            tuning = self._find(connection, request)
            trials, token = rows.page_trials(connection, tuning.arn, wanted)
        spec = spec_of(tuning.request)
        found = [trial_summary(trial, spec.named(trial.definition)) for trial in trials]
        return with_token({"TrainingJobSummaries": found}, token)

    def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context = self._context
        with context.db.write() as connection:
            tuning = self._find(connection, request, for_update=True)
            if tuning.status.ended:
                raise ValidationException(
                    "The request was rejected because the hyperparameter tuning job is in status "
                    f"{tuning.status}."
                )
            if tuning.status is TuningStatus.STOPPING:
                return {}
            rows.change_tuning(
                connection,
                tuning.arn,
                status=TuningStatus.STOPPING,
                desired=Desired.STOPPED,
                modified_at=context.now(),
            )
            context.event(connection, tuning.arn, TuningStatus.STOPPING, "Requested")
        context.changed()
        return {}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Its training jobs and their models stay. One that is not there is deleted already."""
        context = self._context
        with context.db.write() as connection:
            arn = context.arns.of(TUNING_JOB, request["HyperParameterTuningJobName"])
            tuning = rows.get_tuning(connection, arn, for_update=True)
            if tuning is None:
                return {}
            if not tuning.status.ended:
                raise ResourceInUse(
                    f"Hyperparameter tuning job {tuning.name!r} is {tuning.status}.",
                    hint="Stop it first.",
                )
            rows.delete_tuning(connection, arn)
            journal.remove_all_tags(connection, arn)
            context.event(connection, arn, "Deleted")
        return {}

    def _find(
        self, connection: Connection, request: Mapping[str, Any], *, for_update: bool = False
    ) -> TuningRecord:
        name = request.get("HyperParameterTuningJobName")
        if name is None:
            raise ValidationException("A parent of WarmStartConfig has no name.")
        tuning = rows.get_tuning(
            connection, self._context.arns.of(TUNING_JOB, name), for_update=for_update
        )
        if tuning is None:
            raise ResourceNotFound(
                f"Amazon SageMaker can't find a tuning job with the name {name}.",
                hint="ListHyperParameterTuningJobs shows those that are there.",
            )
        return tuning

    def _with_metrics_of_parents(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """AWS's SDK leaves the metric definitions out when it starts a tuner warm from another."""
        definition, config = request.get("TrainingJobDefinition"), request.get("WarmStartConfig")
        if definition is None or config is None:
            return request
        algorithm = definition["AlgorithmSpecification"]
        if algorithm.get("MetricDefinitions"):
            return request
        with self._context.db.read() as connection:
            parent = self._find(connection, config["ParentHyperParameterTuningJobs"][0])
        metrics = spec_of(parent.request).definitions[0].request["AlgorithmSpecification"]
        algorithm = {**algorithm, "MetricDefinitions": metrics["MetricDefinitions"]}
        definition = {**definition, "AlgorithmSpecification": algorithm}
        return {**request, "TrainingJobDefinition": definition}

    def _history(
        self, connection: Connection, request: Mapping[str, Any], spec: TuningSpec
    ) -> tuple[TrialRecord, ...]:
        """The trials of the parents of a warm start, which must have ended."""
        config = request.get("WarmStartConfig") or {}
        found: list[TrialRecord] = []
        for parent in config.get("ParentHyperParameterTuningJobs") or ():
            tuning = self._find(connection, parent)
            if not tuning.status.ended:
                raise ValidationException(
                    f"Parent tuning job {tuning.name!r} is {tuning.status}; a warm start needs "
                    "parents that have ended."
                )
            if config["WarmStartType"] == IDENTICAL:
                _check_identical(tuning, spec)
            found += rows.trials_of(connection, tuning.arn)
        names = {definition.name for definition in spec.definitions}
        if len(names) == 1:
            # One definition takes over what the parents' ones found, whatever they were called.
            return tuple(replace(trial, definition=next(iter(names))) for trial in found)
        return tuple(trial for trial in found if trial.definition in names)


def _example(dimension: Dimension) -> str:
    return dimension.values[0] if dimension.values else dimension.text(dimension.low)


def _check_identical(parent: TuningRecord, spec: TuningSpec) -> None:
    """Raises ValidationException where image, data or objective differ from the parent's."""
    theirs = spec_of(parent.request).definitions
    for definition in spec.definitions:
        differences = [_differences(definition, other) for other in theirs]
        if all(differences):
            fewest = min(differences, key=len)
            raise ValidationException(
                f"Parent tuning job {parent.name!r} has {' and '.join(fewest)}. "
                f"With WarmStartType {IDENTICAL} they are the same; TransferLearning allows others."
            )


def _differences(one: Definition, other: Definition) -> list[str]:
    """What of image, data and objective the ``other`` has not in common with this one, in words."""
    found = []
    images = [each.request["AlgorithmSpecification"].get("TrainingImage") for each in (one, other)]
    if images[0] != images[1]:
        found.append(f"another training image ({images[1]})")
    ours, theirs = _data(one), _data(other)
    names = [repr(name) for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if names:
        word = "channel" if len(names) == 1 else "channels"
        found.append(f"other input data ({word} {', '.join(names)})")
    goals = [(each.objective.type, each.objective.metric) for each in (one, other)]
    if goals[0] != goals[1]:
        found.append(f"another objective ({' '.join(goals[1])})")
    return found


def _data(definition: Definition) -> dict[str, Any]:
    """Where each channel comes from. Those by which SDK v3 sends a script are not data: it uploads
    them to a new place for every search."""
    channels = definition.request.get("InputDataConfig") or ()
    return {
        item["ChannelName"]: item["DataSource"]
        for item in channels
        if item["ChannelName"] not in _CODE_CHANNELS
    }


def _taken(arn: str) -> ResourceInUse:
    return ResourceInUse(
        "Hyperparameter tuning job names must be unique within an AWS account and region, and a "
        f"tuning job with this name already exists ({arn})."
    )
