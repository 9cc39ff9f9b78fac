"""Commands that take the name of a job, of whichever kind, and those that start jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
ARN = "arn:aws:sagemaker:us-east-1:123456789012:x/j"


@pytest.fixture(autouse=True)
def no_endpoint(fake: Any, sdk_tools: Any) -> None:
    fake.rules["DescribeEndpoint"] = sdk_tools.aws_error(
        "ValidationException", 'Could not find endpoint "j".'
    )


@pytest.fixture
def have(fake: Any, sdk_tools: Any) -> Callable[..., None]:
    """Have jobs named j: ``training="Completed"``."""

    def jobs(**statuses: str) -> None:
        for kind, status in statuses.items():
            member = "HyperParameterTuning" if kind == "tuning" else kind.capitalize()
            answer = {
                f"{member}JobName": "j",
                f"{member}JobArn": ARN,
                f"{member}JobStatus": status,
                "CreationTime": 1.7e9,
            }
            if kind == "tuning":
                answer["HyperParameterTuningJobConfig"] = {"Strategy": "Random"}
            fake.rules[f"Describe{member}Job"] = sdk_tools.Reply(answer)
            fake.rules[f"Stop{member}Job"] = sdk_tools.Reply({})

    return jobs


def stopped(fake: Any) -> list[str]:
    return [name for name in fake.operations() if name.startswith("Stop")]


def log_groups(fake: Any) -> list[str]:
    return [each["logGroupName"] for each in fake.requests("DescribeLogStreams")]


def test_of_jobs_with_one_name_the_one_that_runs_is_meant(
    fake: Any, run: Run, have: Any, sdk_tools: Any
) -> None:
    have(training="Completed", processing="InProgress")
    assert run("stop", "j").exit_code == 0
    assert stopped(fake) == ["StopProcessingJob"]
    fake.rules["DescribeLogStreams"] = sdk_tools.Reply({"logStreams": []})
    run("logs", "j")
    assert log_groups(fake) == ["/aws/sagemaker/ProcessingJobs"]
    assert "j: InProgress" in run("describe", "j").stdout


@pytest.mark.parametrize("statuses", [("Completed", "Failed"), ("InProgress", "Stopping")])
def test_otherwise_the_kind_is_asked_for(
    fake: Any, run: Run, have: Any, sdk_tools: Any, statuses: tuple[str, str]
) -> None:
    have(training=statuses[0], tuning=statuses[1])
    for command in ("stop", "logs", "describe"):
        result = run(command, "j")
        assert result.exit_code == 2
        assert f"a training job ({statuses[0]}) and a tuning job ({statuses[1]})" in result.stderr
        assert "--kind training or --kind tuning" in result.stderr
    assert run("stop", "j", "--kind", "tuning").exit_code == 0
    assert stopped(fake) == ["StopHyperParameterTuningJob"]
    fake.rules["DescribeLogStreams"] = sdk_tools.Reply({"logStreams": []})
    run("logs", "j", "--kind", "training")
    assert log_groups(fake) == ["/aws/sagemaker/TrainingJobs"]


def test_a_kind_that_is_not_there_is_said(run: Run, have: Any) -> None:
    have(training="InProgress")
    result = run("stop", "j", "--kind", "transform")
    assert result.exit_code == 4
    assert "There is no transform job 'j'" in result.stderr
    result = run("stop", "j", "--kind", "trainin")
    assert result.exit_code == 2
    assert "'training'" in result.stderr


def test_the_log_of_a_tuning_job_is_that_of_its_trials(
    fake: Any, run: Run, have: Any, sdk_tools: Any
) -> None:
    have(tuning="Completed")
    streams = [
        {"logStreamName": name}
        for name in ("j-001-1a2b3c4d/algo-1-17", "j-002-5e6f7a8b/algo-1-17", "j-other/algo-1-17")
    ]
    fake.on("DescribeLogStreams", sdk_tools.Reply({"logStreams": streams}))

    def events(call: Any) -> Any:
        stream = call.json["logStreamName"]
        at = 1_700_000_000_000 + int(stream[4:5] == "2")
        return sdk_tools.Reply(
            {"events": [{"timestamp": at, "message": "loss=1"}], "nextForwardToken": "t"}
        )

    fake.rules["GetLogEvents"] = events
    result = run("logs", "j")
    assert result.stdout == "j-001-1a2b3c4d  loss=1\nj-002-5e6f7a8b  loss=1\n"
    first = run("logs", "j", "-t").stdout.splitlines()[0]
    assert first.endswith("Z j-001-1a2b3c4d/algo-1-17  loss=1")
    assert fake.requests("DescribeLogStreams")[0]["logStreamNamePrefix"] == "j-"
    fake.rules["DescribeLogStreams"] = sdk_tools.aws_error("ResourceNotFoundException", "no")
    result = run("logs", "j")
    assert (result.exit_code, result.stderr) == (0, "Tuning job 'j' has written nothing yet.\n")


def test_a_list_that_a_filter_left_empty_says_so(run: Run) -> None:
    assert "No jobs. `ridgeline train SCRIPT` starts one." in run("jobs").stderr
    said = run("jobs", "zzzz", "--status", "Failed").stderr
    assert said.startswith("No job whose name contains 'zzzz' and whose status is 'Failed'.")
    assert run("jobs", "--status", "Failed").stderr.startswith("No job whose status is 'Failed'.")


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text("")
    return str(path)


def test_a_pair_says_what_it_lacks(run: Run, script: str) -> None:
    for pair, lacks in (("=3", "name before its '='"), ("lr", "'='")):
        result = run("train", script, "--hp", pair)
        assert result.exit_code == 2
        assert f"--hp {pair!r} has no {lacks}." in result.stderr


@pytest.mark.parametrize(
    ("options", "asked", "said"),
    [
        (["-r", "lr=1"], (1, 1), "The ranges have 1 point: --jobs is 1 instead of 10."),
        (["-r", "n=1:3"], (3, 2), "The ranges have 3 points: --jobs is 3 instead of 10."),
        (["-r", "lr=0:1"], (2, 2), "lr=0:1 means whole numbers; lr=0.0:1.0 any between them."),
        (["-r", "n=1:3", "-r", "k=a,b", "-n", "7"], (6, 2), "6 instead of 7."),
        (["-r", "n=1:3", "-r", "k=a,b", "-n", "5"], (5, 2), ""),
        (["-r", "n=1:3", "-r", "lr=0.0:1.0"], (10, 2), ""),
    ],
)
def test_there_are_no_more_trials_than_points(
    fake: Any, run: Run, script: str, options: list[str], asked: tuple[int, int], said: str
) -> None:
    result = run("tune", script, "--objective", "loss", "--no-wait", *options)
    [request] = fake.requests("CreateHyperParameterTuningJob")
    limits = request["HyperParameterTuningJobConfig"]["ResourceLimits"]
    most = limits["MaxNumberOfTrainingJobs"], limits["MaxParallelTrainingJobs"]
    assert most == asked
    assert said in result.stderr
    assert ("instead of" in result.stderr) == bool(said)


def test_a_hyperparameter_is_fixed_or_searched(run: Run, script: str) -> None:
    result = run("tune", script, "-o", "loss", "--hp", "n=4", "--hp-range", "n=1:3")
    assert result.exit_code == 2
    assert "n: both --hp and --hp-range are given." in result.stderr


LONG_NAME = "train-2026-11-22-with-a-name-of-its-own"


@pytest.fixture
def no_long_tuning_names(fake: Any, sdk_tools: Any) -> None:
    """A name that no tuning job may have is refused by the service, not looked for."""
    fake.rules["DescribeHyperParameterTuningJob"] = sdk_tools.aws_error(
        "ValidationException",
        f"1 validation error detected: Value '{LONG_NAME}' at 'hyperParameterTuningJobName' failed "
        "to satisfy constraint: Member must have length less than or equal to 32",
    )


@pytest.mark.usefixtures("no_long_tuning_names")
def test_a_job_is_found_by_a_name_that_is_too_long_for_a_tuning_job(
    fake: Any, run: Run, have: Any, sdk_tools: Any
) -> None:
    have(training="InProgress")
    fake.rules["DescribeLogStreams"] = sdk_tools.Reply({"logStreams": []})
    assert run("stop", LONG_NAME).exit_code == 0
    assert stopped(fake) == ["StopTrainingJob"]
    assert run("logs", LONG_NAME).exit_code == 0
    assert f"{LONG_NAME}: InProgress" in run("describe", LONG_NAME).stdout


@pytest.mark.usefixtures("no_long_tuning_names")
def test_an_unknown_name_is_not_found_however_long(run: Run) -> None:
    for arguments in (("describe", LONG_NAME), ("stop", LONG_NAME, "--kind", "tuning")):
        result = run(*arguments)
        assert result.exit_code == 4
        assert LONG_NAME in result.stderr
        assert "validation error" not in result.stderr


def test_a_job_without_stages_that_waits_is_pending(fake: Any, run: Run, sdk_tools: Any) -> None:
    waiting = {
        "ProcessingJobName": "j",
        "ProcessingJobArn": ARN,
        "ProcessingJobStatus": "InProgress",
        "CreationTime": 1.7e9,
        "FailureReason": "Waiting for room.",
    }
    answer = sdk_tools.Reply({"ProcessingJobSummaries": [waiting]})
    fake.rules["ListProcessingJobs"] = answer
    [line] = [line for line in run("jobs").stdout.splitlines() if line.startswith("j ")]
    assert line.split()[:4] == ["j", "processing", "InProgress", "Pending"]


@pytest.mark.parametrize("given", ["inprogress", "InProgress", "INPROGRESS"])
def test_a_status_is_known_in_any_case(fake: Any, run: Run, given: str) -> None:
    assert run("jobs", "--status", given).exit_code == 0
    assert fake.requests("ListTrainingJobs")[0]["StatusEquals"] == "InProgress"


@pytest.mark.parametrize(
    ("framework", "option"), [("pytorch", "  #"), ("sklearn", " --framework sklearn  #")]
)
def test_a_job_that_is_done_says_how_its_model_is_deployed(
    fake: Any, run: Run, script: str, sdk_tools: Any, framework: str, option: str
) -> None:
    uri = "s3://b/j/output/model.tar.gz"
    done = {
        "TrainingJobName": "j",
        "TrainingJobArn": ARN,
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "CreationTime": 1.7e9,
        "ModelArtifacts": {"S3ModelArtifacts": uri},
    }
    fake.rules["CreateTrainingJob"] = sdk_tools.Reply({"TrainingJobArn": ARN})
    fake.rules["DescribeTrainingJob"] = sdk_tools.Reply(done)
    fake.rules["DescribeLogStreams"] = sdk_tools.Reply({"logStreams": []})
    result = run("train", script, "--name", "j", "--framework", framework)
    assert result.exit_code == 0, result.stderr
    assert f"ridgeline deploy {uri}{option}" in result.stderr
