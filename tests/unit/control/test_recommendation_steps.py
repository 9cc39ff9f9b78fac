"""Recommendations jobs: what is refused at once, and what becomes of each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.control.command_jobs.advising import Advising
from ridgeline_service.control.command_jobs.benchmarks import offered_types
from ridgeline_service.control.command_jobs.life import CommandFailed, CommandLife
from ridgeline_service.control.command_jobs.recommendations import RecommendationsJobs
from ridgeline_service.control.context import Context
from ridgeline_service.control.models import Models
from ridgeline_service.errors import ValidationException
from ridgeline_service.paths import DataDir
from ridgeline_service.placement.profiles import is_instance_type
from ridgeline_service.settings import Settings
from ridgeline_service.store import command_jobs as rows
from ridgeline_service.store import open_database
from ridgeline_service.store.command_jobs import CommandJob, CommandKind

ROLE = "arn:aws:iam::000000000000:role/any"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings, data_dir = Settings(), DataDir(tmp_path)
    database = open_database(settings, data_dir)
    ids = iter("abcdefgh").__next__
    yield Context(database, settings, data_dir, lambda: 1_700_000_000.0, ids, lambda: None)
    database.close()


def test_a_latency_limit_leaves_out_what_is_too_slow(context: Context) -> None:
    """1 ms is met by nobody, and each step says what it takes."""
    Models(context).create(
        {
            "ModelName": "llama",
            "ExecutionRoleArn": ROLE,
            "PrimaryContainer": {"Image": "i", "Environment": {"HF_MODEL_ID": "llama-3.1-8b"}},
        }
    )
    jobs = RecommendationsJobs(context)
    asked = {
        "JobName": "r",
        "JobType": "Advanced",
        "RoleArn": ROLE,
        "InputConfig": {
            "ModelName": "llama",
            "EndpointConfigurations": [{"InstanceType": "ml.inf2.48xlarge"}],
        },
    }
    jobs.create(asked)
    with context.db.read() as connection:
        [job] = rows.living_command_jobs(connection)
    advising = Advising(context, lambda: None)
    [found] = advising(job, lambda: False)["recommendations"]
    assert found["metrics"]["CostPerInference"] > 0
    limit = {"ModelLatencyThresholds": [{"Percentile": "P95", "ValueInMilliseconds": 1}]}
    tight = CommandJob(**{**job.__dict__, "request": {**asked, "StoppingConditions": limit}})
    with pytest.raises(
        CommandFailed, match=r"95% of the requests of 1 users take \d+ ms, the limit is 1 ms"
    ):
        advising(tight, lambda: False)
    with pytest.raises(ValidationException, match="EndpointConfigurations"):
        jobs.create({**asked, "InputConfig": {"ModelName": "llama"}})


def recommendations(**config: Any) -> dict[str, Any]:
    """A request of a job for Llama 3.1 8B."""
    return {
        "JobName": "r",
        "JobType": "Advanced" if "EndpointConfigurations" in config else "Default",
        "RoleArn": ROLE,
        "InputConfig": {
            **config,
            "ContainerConfig": {
                "NearestModelName": "llama-3.1-8b",
                **config.get("ContainerConfig", {}),
            },
        },
    }


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"EndpointConfigurations": [{"InstanceType": "ml.m5.large"}, {"InstanceType": "ml.x"}]},
            "1 validation error detected: Value 'ml.x' at "
            "'inputConfig.endpointConfigurations.2.member.instanceType' failed to satisfy "
            "constraint: Member must satisfy enum value set: [",
        ),
        (
            {"ContainerConfig": {"SupportedInstanceTypes": ["inf2.xlarge"]}},
            "Value 'inf2.xlarge' at 'inputConfig.containerConfig.supportedInstanceTypes.1.member' "
            "failed to satisfy constraint: Member must satisfy enum value set: [ml.inf2.xlarge, ",
        ),
        (
            {"ContainerConfig": {"PayloadConfig": {"SamplePayloadUrl": "s3://walkb"}}},
            "PayloadConfig.SamplePayloadUrl 's3://walkb' names no object",
        ),
    ],
)
def test_what_no_test_can_be_of_is_refused_at_once(
    context: Context, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationException) as refused:
        RecommendationsJobs(context).create(recommendations(**config))
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_types_are_offered_that_endpoints_can_have() -> None:
    offered = offered_types()
    assert "ml.inf2.xlarge" in offered
    assert all(is_instance_type(name) for name in offered)


def advised(context: Context, job_request: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a recommendations job after its step."""
    jobs = RecommendationsJobs(context)
    jobs.create(job_request)
    with context.db.write() as connection:
        [job] = rows.living_command_jobs(connection)
        expires = context.now() + 10_000_000
        rows.CLAIMS.take(
            connection, job.arn, "me", now=0, expires_at=expires, holder_is_dead=lambda _: False
        )
    work = {CommandKind.RECOMMENDATIONS: Advising(context, lambda: None)}
    CommandLife(context, holder="me", work=work, at_once=1).step(job)
    found: list[dict[str, Any]] = jobs.list_steps({"JobName": "r"})["Steps"]
    return found


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "OPTION_TENSOR_PARALLEL_DEGREE",
            "abc",
            "OPTION_TENSOR_PARALLEL_DEGREE=abc is not valid. Allowed: a whole number, at least 1.",
        ),
        ("OPTION_TENSOR_PARALLEL_DEGREE", "²", "a whole number, at least 1."),
        (
            "OPTION_MAX_ROLLING_BATCH_SIZE",
            "0",
            "OPTION_MAX_ROLLING_BATCH_SIZE=0 is not valid. Allowed: a whole number, at least 1.",
        ),
        ("OPTION_QUANTIZE", "fp4", "OPTION_QUANTIZE=fp4 is not supported. Allowed: none or int8"),
        (
            "OPTION_MAX_MODEL_LEN",
            "1000000",
            "A context length of 1000000 was asked for; the model has 131072. "
            "Set OPTION_MAX_MODEL_LEN or MAX_TOTAL_TOKENS to at most 131072.",
        ),
    ],
)
def test_a_value_that_no_endpoint_takes_is_a_step_that_failed(
    name: str, value: str, said: str, context: Context
) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": name, "Value": [value]}]}
    of = {"InstanceType": "ml.inf2.48xlarge", "EnvironmentParameterRanges": ranges}
    [step] = advised(context, recommendations(EndpointConfigurations=[of]))
    assert step["Status"] == "FAILED"
    reason = step["InferenceBenchmark"]["FailureReason"]
    assert reason.startswith("ml.inf2.48xlarge: ")
    assert said in reason
    assert name in reason
    assert ".." not in reason
    job = RecommendationsJobs(context).describe({"JobName": "r"})
    assert (job["Status"], job["FailureReason"]) == ("FAILED", reason)
    assert "InferenceRecommendations" not in job


def test_what_is_recommended_is_what_was_simulated(context: Context) -> None:
    of = {"InstanceType": "ml.inf2.48xlarge"}
    [step] = advised(context, recommendations(EndpointConfigurations=[of]))
    found = step["InferenceBenchmark"]["ModelConfiguration"]["EnvironmentParameters"]
    values = {one["Key"]: one["Value"] for one in found}
    assert values["OPTION_MAX_MODEL_LEN"] == "1024"
