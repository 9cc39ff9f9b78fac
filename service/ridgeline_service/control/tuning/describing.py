"""What the calls about tuning jobs answer, made from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline_service.control.names import to_datetime
from ridgeline_service.control.tuning.decisions import Finish, best_of, not_improving
from ridgeline_service.control.tuning.spec import (
    OBJECTIVE_PARAMETER,
    Definition,
    TuningSpec,
    spec_of,
)
from ridgeline_service.control.tuning.trials import resource_config, tuning_name
from ridgeline_service.store.job_records import JobStatus
from ridgeline_service.store.tuning_records import TrialRecord, TuningRecord

IDENTICAL = "IdenticalDataAndAlgorithm"


def describe(tuning: TuningRecord, trials: Sequence[TrialRecord], now: int) -> dict[str, Any]:
    request, spec = tuning.request, spec_of(tuning.request)
    shown: dict[str, Any] = {
        **{key: request[key] for key in ("WarmStartConfig", "Autotune") if key in request},
        "HyperParameterTuningJobName": tuning.name,
        "HyperParameterTuningJobArn": tuning.arn,
        "HyperParameterTuningJobConfig": _config(request, spec),
        "HyperParameterTuningJobStatus": tuning.status.value,
        "CreationTime": to_datetime(tuning.created_at),
        "LastModifiedTime": to_datetime(tuning.modified_at),
        "TrainingJobStatusCounters": status_counters(trials),
        "ObjectiveStatusCounters": objective_counters(trials),
        "TuningJobCompletionDetails": {
            "NumberOfTrainingJobsObjectiveNotImproving": not_improving(spec, trials)
        },
        "ConsumedResources": {
            "RuntimeInSeconds": round(((tuning.ended_at or now) - tuning.created_at) / 1e6)
        },
    }
    if "TrainingJobDefinition" in request:
        shown["TrainingJobDefinition"] = _definition(spec.definitions[0])
    else:
        shown["TrainingJobDefinitions"] = [_definition(each) for each in spec.definitions]
    if tuning.ended_at is not None:
        shown["HyperParameterTuningEndTime"] = to_datetime(tuning.ended_at)
        if tuning.cause == Finish.CONVERGED:
            when = to_datetime(tuning.ended_at)
            shown["TuningJobCompletionDetails"]["ConvergenceDetectedTime"] = when
    if tuning.failure_reason:
        shown["FailureReason"] = tuning.failure_reason
    best = best_of(spec, trials)
    if best is not None:
        shown["BestTrainingJob"] = trial_summary(best, spec.named(best.definition))
    if (request.get("WarmStartConfig") or {}).get("WarmStartType") == IDENTICAL:
        # The parents' trials were of the same metric, of which more or less is better.
        overall = best_of(spec, [*tuning.history, *trials])
        if overall is not None:
            definition = spec.named(overall.definition)
            shown["OverallBestTrainingJob"] = {
                **trial_summary(overall, definition),
                "TuningJobName": tuning_name(overall.name),
            }
    return shown


def tuning_summary(tuning: TuningRecord, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    config = tuning.request["HyperParameterTuningJobConfig"]
    shown = {
        "HyperParameterTuningJobName": tuning.name,
        "HyperParameterTuningJobArn": tuning.arn,
        "HyperParameterTuningJobStatus": tuning.status.value,
        "Strategy": config["Strategy"],
        "CreationTime": to_datetime(tuning.created_at),
        "LastModifiedTime": to_datetime(tuning.modified_at),
        "TrainingJobStatusCounters": status_counters(trials),
        "ObjectiveStatusCounters": objective_counters(trials),
        "ResourceLimits": config["ResourceLimits"],
    }
    if tuning.ended_at is not None:
        shown["HyperParameterTuningEndTime"] = to_datetime(tuning.ended_at)
    return shown


def trial_summary(trial: TrialRecord, definition: Definition) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "TrainingJobName": trial.name,
        "TrainingJobArn": trial.arn,
        "CreationTime": to_datetime(trial.created_at),
        "TrainingJobStatus": trial.status.value,
        "TunedHyperParameters": dict(trial.parameters),
        "ObjectiveStatus": objective_status(trial),
    }
    if trial.definition:
        shown["TrainingJobDefinitionName"] = trial.definition
    if trial.started_at is not None:
        shown["TrainingStartTime"] = to_datetime(trial.started_at)
    if trial.ended_at is not None:
        shown["TrainingEndTime"] = to_datetime(trial.ended_at)
    if trial.failure_reason:
        shown["FailureReason"] = trial.failure_reason
    if trial.objective is not None:
        shown["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "Type": definition.objective.type,
            "MetricName": definition.objective.metric,
            "Value": trial.objective,
        }
    return shown


def objective_status(trial: TrialRecord) -> str:
    if not trial.status.ended:
        return "Pending"
    return "Failed" if trial.objective is None else "Succeeded"


def status_counters(trials: Sequence[TrialRecord]) -> dict[str, int]:
    failed = [trial for trial in trials if trial.status is JobStatus.FAILED]
    return {
        "Completed": sum(trial.status is JobStatus.COMPLETED for trial in trials),
        "InProgress": sum(not trial.status.ended for trial in trials),
        "RetryableError": sum(trial.retryable for trial in failed),
        "NonRetryableError": sum(not trial.retryable for trial in failed),
        "Stopped": sum(trial.status is JobStatus.STOPPED for trial in trials),
    }


def objective_counters(trials: Sequence[TrialRecord]) -> dict[str, int]:
    statuses = [objective_status(trial) for trial in trials]
    return {name: statuses.count(name) for name in ("Succeeded", "Pending", "Failed")}


def _config(request: Mapping[str, Any], spec: TuningSpec) -> dict[str, Any]:
    """With the defaults that took effect, which AWS's SDK reads without asking."""
    given = request["HyperParameterTuningJobConfig"]
    limits = {"MaxNumberOfTrainingJobs": spec.max_trials, **given["ResourceLimits"]}
    early = "Auto" if spec.stops_early else "Off"
    return {"TrainingJobEarlyStoppingType": early, **given, "ResourceLimits": limits}


def _definition(definition: Definition) -> dict[str, Any]:
    """As it was given, with what clients expect to find that SageMaker adds."""
    given: Mapping[str, Any] = definition.request
    return {
        **given,
        # AWS's SDK reads this member, whichever of the two was given.
        "ResourceConfig": resource_config(given),
        "StaticHyperParameters": {
            OBJECTIVE_PARAMETER: definition.objective.metric,
            **(given.get("StaticHyperParameters") or {}),
        },
        "OutputDataConfig": {"KmsKeyId": "", **given["OutputDataConfig"]},
    }
