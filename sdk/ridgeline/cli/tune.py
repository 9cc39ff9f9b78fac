"""``ridgeline tune``: a search for the best hyperparameters of a script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline._trials import short
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
from ridgeline.cli.train import deploy_line, estimator_for
from ridgeline.errors import InvalidInput, NotReady, did_you_mean

if TYPE_CHECKING:
    from ridgeline.parameter import ParameterRange

_STRATEGIES = {name.lower(): name for name in ("Bayesian", "Random", "Hyperband", "Grid")}
_SCALES = {"log": "Logarithmic", "linear": "Linear", "reverselog": "ReverseLogarithmic"}
_LESS_IS_BETTER = re.compile(r"loss|err|mse|mae|rmse|perplexity|ppl|nll|time|latency", re.I)
_TRIALS = 10
_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"


def tune(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="The training script.")],
    ranges: Annotated[
        list[str],
        typer.Option(
            "--hp-range",
            "-r",
            metavar="NAME=RANGE",
            help="LOW:HIGH, LOW:HIGH:log (or linear, reverselog), or values: a,b,c. Whole bounds "
            "mean whole numbers: 1:8, but 0.0:1.0.",
        ),
    ],
    objective: Annotated[
        str,
        typer.Option("--objective", "-o", help="The metric to find the best of, like loss."),
    ],
    maximize: Annotated[
        bool | None,
        typer.Option(
            "--maximize/--minimize",
            help="Which is better; by default, less is for losses, errors and times.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME=REGEX",
            help="How the script prints a metric; by default NAME=NUMBER or NAME: NUMBER.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--jobs", "-n", min=1, help="How many to train. [default: 10]")
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", "-p", min=1, help="How many at the same time.")
    ] = 2,
    strategy: Annotated[
        str, typer.Option("--strategy", help="bayesian, random, hyperband or grid.")
    ] = "bayesian",
    early_stop: Annotated[
        bool, typer.Option("--early-stop", help="End trials that fall behind the others.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Try the same points again.")
    ] = None,
    inputs: Inputs = None,
    hyperparameters: Annotated[
        list[str] | None,
        typer.Option("--hp", metavar="NAME=VALUE", help="A hyperparameter that stays."),
    ] = None,
    framework: Framework = "pytorch",
    source_dir: SourceDir = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the tuning job.")] = None,
    instance_type: InstanceType = None,
    env: ScriptEnv = None,
    max_run: Annotated[
        int, typer.Option("--max-run", min=1, help="Seconds that one trial may take.")
    ] = 86_400,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return when the tuning job is accepted.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Search the best hyperparameters of a script, and show every trial."""
    if strategy.lower() not in _STRATEGIES:
        raise InvalidInput(
            f"--strategy {strategy!r} is not known.", hint=did_you_mean(strategy, _STRATEGIES)
        )
    given = _common.parse_pairs(ranges, "--hp-range")
    both = given.keys() & _common.parse_pairs(hyperparameters or [], "--hp").keys()
    if both:
        raise InvalidInput(
            f"{', '.join(sorted(both))}: both --hp and --hp-range are given.",
            hint="A hyperparameter has one value (--hp) or is searched for (--hp-range).",
        )
    channels = _common.parse_pairs(inputs or [], "--input")
    definitions = {objective: rf"{re.escape(objective)}\s*[=:]\s*{_NUMBER}"}
    definitions.update(_common.parse_pairs(metrics or [], "--metric"))
    session = _common.open_session(data_dir)
    from ridgeline.tuner import HyperparameterTuner  # boto3: not for --help

    estimator = estimator_for(
        framework,
        script,
        session,
        source_dir=source_dir,
        hyperparameters=hyperparameters,
        env=env,
        metrics=definitions,
        instance_type=instance_type,
        max_run=max_run,
    )
    more_is_better = not _LESS_IS_BETTER.search(objective) if maximize is None else maximize
    chosen = _STRATEGIES[strategy.lower()]
    searched = {key: parse_range(key, text) for key, text in given.items()}
    most = None if chosen == "Grid" else _most_trials(trials, searched)
    tuner = HyperparameterTuner(
        estimator,
        objective,
        searched,
        strategy=chosen,
        objective_type="Maximize" if more_is_better else "Minimize",
        max_jobs=most if chosen != "Grid" else trials,
        max_parallel_jobs=parallel if most is None else min(parallel, most),
        early_stopping_type="Auto" if early_stop else "Off",
        random_seed=seed,
        base_tuning_job_name=script.stem,
    )
    tuner.fit(dict(channels) or None, job_name=name, wait=not no_wait)
    job = tuner.latest_tuning_job
    if job is None:
        raise AssertionError("fit made no tuning job")
    if as_json:
        _common.print_json(tuner.describe())
        return
    if no_wait:
        print(job.name)
        _common.say(f"It runs. See it with `ridgeline describe {job.name}`.")
        return
    try:
        best = job.best()
    except NotReady as error:
        _common.say(str(error))
        raise typer.Exit(_common.FAILED) from None
    print(best["TrainingJobName"])
    value = best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    _common.say(f"Best {objective}: {value:.6g}, with")
    for key, text in sorted(best["TunedHyperParameters"].items()):
        _common.say(f"  --hp {key}={short(text)}")
    uri = tuner.best_estimator().model_data
    _common.say(f"Its model: {uri}")
    _common.say(f"Deploy it: {deploy_line(uri, framework)}")


def parse_range(name: str, text: str) -> ParameterRange:
    """``1e-4:1e-1:log`` or ``a,b,c``. Raises InvalidInput."""
    from ridgeline.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter

    low, colon, rest = text.partition(":")
    if not colon:
        return CategoricalParameter([_value(each) for each in text.split(",") if each])
    high, _, scale = rest.partition(":")
    if scale and scale not in _SCALES:
        raise InvalidInput(
            f"--hp-range {name}={text}: {scale!r} is no scale.", hint=did_you_mean(scale, _SCALES)
        )
    scaling = _SCALES.get(scale, "Auto")
    try:
        return IntegerParameter(int(low), int(high), scaling)
    except ValueError:
        pass
    try:
        return ContinuousParameter(float(low), float(high), scaling)
    except ValueError:
        raise InvalidInput(
            f"--hp-range {name}={text} is no range.",
            hint=f"Like --hp-range {name}=1e-4:1e-1:log, or --hp-range {name}=a,b,c.",
        ) from None


def _most_trials(asked: int | None, ranges: Mapping[str, ParameterRange]) -> int:
    """How many trials there are to be: no more than there are points to try."""
    from ridgeline.parameter import IntegerParameter

    wanted = asked or _TRIALS
    points = _points(ranges.values())
    if points is None or points >= wanted:
        return wanted
    have = f"{points} point{'' if points == 1 else 's'}"
    _common.say(f"The ranges have {have}: --jobs is {points} instead of {wanted}.")
    for name, each in ranges.items():
        if isinstance(each, IntegerParameter):
            low, high = each.min_value, each.max_value
            _common.say(
                f"  {name}={low}:{high} means whole numbers; "
                f"{name}={low}.0:{high}.0 any between them."
            )
    return points


def _points(ranges: Iterable[ParameterRange]) -> int | None:
    """None where there is no end of them."""
    from ridgeline.parameter import CategoricalParameter, IntegerParameter

    points = 1
    for each in ranges:
        if isinstance(each, CategoricalParameter):
            points *= len({repr(value) for value in each.values})
        elif isinstance(each, IntegerParameter):
            points *= int(each.max_value) - int(each.min_value) + 1
        else:
            return None
    return points


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
