"""``ridgeline train``: a script as a training job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import (
    AsJson,
    DataDir,
    Framework,
    Inputs,
    InstanceType,
    ScriptEnv,
    SourceDir,
)
from ridgeline.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    from ridgeline.estimator import Estimator
    from ridgeline.session import Session

_FRAMEWORKS = ("pytorch", "huggingface", "sklearn")


def train(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="The training script.")],
    inputs: Inputs = None,
    hyperparameters: Annotated[
        list[str] | None,
        typer.Option("--hp", metavar="NAME=VALUE", help="A hyperparameter: --NAME of the script."),
    ] = None,
    framework: Framework = "pytorch",
    source_dir: SourceDir = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the job.")] = None,
    instance_type: InstanceType = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of instances.")] = 1,
    env: ScriptEnv = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=REGEX", help="A metric in the script's output."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="S3URI", help="Where the model goes.")
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option("--checkpoints", metavar="S3URI", help="Keep /opt/ml/checkpoints there."),
    ] = None,
    max_run: Annotated[int, typer.Option("--max-run", min=1, help="Seconds it may take.")] = 86_400,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return when the job is accepted.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a script as a training job and wait for its model."""
    channels = _common.parse_pairs(inputs or [], "--input")
    estimator = estimator_for(
        framework,
        script,
        _common.open_session(data_dir),
        source_dir=source_dir,
        hyperparameters=hyperparameters,
        env=env,
        metrics=_common.parse_pairs(metrics or [], "--metric"),
        instance_count=count,
        instance_type=instance_type,
        output_path=output,
        checkpoint_s3_uri=checkpoints,
        max_run=max_run,
    )
    estimator.fit(dict(channels) or None, wait=not no_wait, job_name=name)
    job = estimator.latest_training_job
    if job is None:
        raise AssertionError("fit made no job")
    described = job.describe()
    if as_json:
        _common.print_json(described)
        return
    print(job.name)
    if no_wait:
        _common.say(f"It runs. Follow it with `ridgeline logs -f {job.name}`.")
    else:
        uri = described["ModelArtifacts"]["S3ModelArtifacts"]
        _common.say(f"Model: {uri}")
        _common.say(f"Deploy it: {deploy_line(uri, framework)}")


def deploy_line(uri: str, framework: str) -> str:
    """The command that serves the model of a job. What lies in it tells all but scikit-learn."""
    option = " --framework sklearn" if framework == "sklearn" else ""
    return f"ridgeline deploy {uri}{option}  # with code/inference.py in it, or --entry-point FILE"


def estimator_for(
    framework: str,
    script: Path,
    session: Session,
    *,
    source_dir: Path | None,
    hyperparameters: Sequence[str] | None,
    env: Sequence[str] | None,
    metrics: Mapping[str, str],
    **options: Any,
) -> Estimator:
    """The estimator that a command line means. Raises InvalidInput."""
    if framework not in _FRAMEWORKS:
        raise InvalidInput(
            f"--framework {framework!r} is not known.", hint=did_you_mean(framework, _FRAMEWORKS)
        )
    values = _common.parse_pairs(hyperparameters or [], "--hp")
    environment = _common.parse_pairs(env or [], "--env")
    from ridgeline import frameworks  # boto3: not for --help

    kinds: dict[str, Callable[..., Estimator]] = {
        "pytorch": frameworks.PyTorch,
        "huggingface": frameworks.HuggingFace,
        "sklearn": frameworks.SKLearn,
    }
    return kinds[framework](
        str(script),
        source_dir=None if source_dir is None else str(source_dir),
        environment=environment,
        hyperparameters={key: _value(text) for key, text in values.items()},
        metric_definitions=[{"Name": key, "Regex": regex} for key, regex in metrics.items()],
        sagemaker_session=session,
        **options,
    )


def _value(text: str) -> Any:
    """A number or another JSON value where it is one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
