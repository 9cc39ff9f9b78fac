"""What a tuning job needs next: a pure function from its row, its spec, its trials and the time.

A reason to finish stands once the row has it as its cause: what the last trials come to, which are
stopped by it, does not take it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ridgeline_service.control.tuning.spec import TuningSpec
from ridgeline_service.control.tuning.stopping import below_median, out_of_rung
from ridgeline_service.store.job_records import JobStatus
from ridgeline_service.store.states import Desired
from ridgeline_service.store.tuning_records import TrialRecord, TuningRecord, TuningStatus

HOPELESS = 10
"""A search none of whose first trials came to a value, so many and more than run at once, is
given up."""

CONVERGED = 15
"""Trials in a row without an improvement after which a search has converged."""

IMPROVEMENT = 0.01


class Finish(StrEnum):
    """Why a tuning job starts no more trials."""

    STOP_REQUESTED = "StopRequested"
    LAUNCH_FAILED = "LaunchFailed"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    TARGET = "TargetReached"
    NOT_IMPROVING = "NotImproving"
    CONVERGED = "Converged"
    HOPELESS = "NoObjective"
    DONE = "Done"


@dataclass(frozen=True)
class Decision:
    """``finish`` is why no more trials start; all ``stop`` are told to end; with nothing left to
    wait for, ``over`` says that the tuning job has ended."""

    finish: Finish | None
    launch: int
    stop: tuple[TrialRecord, ...]
    over: bool


@dataclass(frozen=True)
class Ending:
    status: TuningStatus
    reason: str


def decide(
    tuning: TuningRecord, spec: TuningSpec, trials: Sequence[TrialRecord], now: int
) -> Decision:
    living = [trial for trial in trials if not trial.status.ended]
    finish = _finish(tuning, spec, trials, now)
    if finish is None and len(trials) >= spec.max_trials and not living:
        finish = Finish.DONE
    if finish is not None:
        return Decision(finish, 0, _unasked(living), over=not living)
    room = min(spec.max_parallel - len(living), spec.max_trials - len(trials))
    losing = [trial for trial in _unasked(living) if not_worth_it(spec, trial, trials)]
    return Decision(None, max(0, room), tuple(losing), over=False)


def not_worth_it(spec: TuningSpec, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
    """Whether the strategy or early stopping ends this running trial."""
    alike = [each for each in trials if each.definition == trial.definition]
    objective = spec.named(trial.definition).objective
    if spec.hyperband is not None:
        curves = {spec.index(each.number): each.curve for each in alike}
        return out_of_rung(spec.index(trial.number), curves, spec.hyperband, objective)
    if not spec.stops_early:
        return False
    completed = [each.curve for each in alike if each.status is JobStatus.COMPLETED]
    return below_median(trial.curve, completed, objective)


def ending_of(
    finish: Finish, tuning: TuningRecord, spec: TuningSpec, trials: Sequence[TrialRecord]
) -> Ending:
    """How a tuning job ends whose trials have all ended."""
    if finish is Finish.STOP_REQUESTED:
        return Ending(TuningStatus.STOPPED, "")
    if finish is Finish.LAUNCH_FAILED:
        return Ending(TuningStatus.FAILED, tuning.failure_reason)
    if any(trial.objective is not None for trial in trials):
        stopped = finish is Finish.MAX_RUNTIME
        return Ending(TuningStatus.STOPPED if stopped else TuningStatus.COMPLETED, "")
    failed = [trial for trial in trials if trial.status is JobStatus.FAILED]
    if failed:
        every = "All" if len(failed) == len(trials) else f"{len(failed)} of {len(trials)}"
        return Ending(
            TuningStatus.FAILED,
            f"{every} training jobs failed. Please take a look at the training jobs failures to "
            f"get more details. {failed[0].name}: {failed[0].failure_reason}",
        )
    if finish is Finish.MAX_RUNTIME:
        return Ending(TuningStatus.STOPPED, "")
    metrics = dict.fromkeys(
        f"{each.objective.metric!r} by {each.objective.regex!r}" for each in spec.definitions
    )
    return Ending(
        TuningStatus.FAILED,
        f"No objective metrics found after running {len(trials)} training jobs. Please ensure that "
        "the custom algorithm is emitting the objective metric as defined by the regular "
        f"expression provided, as finite numbers. Looked for: {', '.join(metrics)}.",
    )


def best_of(spec: TuningSpec, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial with the best objective; those that were stopped count, as their models were
    kept."""
    ended = [
        trial
        for trial in trials
        if trial.objective is not None and trial.status in (JobStatus.COMPLETED, JobStatus.STOPPED)
    ]
    return max(ended, key=lambda trial: _score(spec, trial), default=None)


def not_improving(spec: TuningSpec, trials: Sequence[TrialRecord]) -> int:
    """How many trials ended since one was better than all before it by 1 %."""
    count, best = 0, None
    ended = [trial for trial in trials if trial.ended_at is not None]
    for trial in sorted(ended, key=lambda trial: (trial.ended_at, trial.number)):
        if trial.objective is None:
            continue
        score = _score(spec, trial)
        if best is None or score - best > IMPROVEMENT * abs(best):
            best, count = score, 0
        else:
            count += 1
    return count


def _finish(
    tuning: TuningRecord, spec: TuningSpec, trials: Sequence[TrialRecord], now: int
) -> Finish | None:
    if tuning.desired is Desired.STOPPED:
        return Finish.STOP_REQUESTED
    if tuning.cause:
        return Finish(tuning.cause)
    if spec.max_runtime_s is not None and now - tuning.created_at > spec.max_runtime_s * 1e6:
        return Finish.MAX_RUNTIME
    best = best_of(spec, trials)
    if best is not None and spec.target is not None:
        target = spec.named(best.definition).objective.score(spec.target)
        if _score(spec, best) >= target:
            return Finish.TARGET
    without = not_improving(spec, trials)
    if spec.patience is not None and without >= spec.patience:
        return Finish.NOT_IMPROVING
    if spec.until_converged and without >= CONVERGED:
        return Finish.CONVERGED
    ended = [trial for trial in trials if trial.status.ended]
    if len(ended) >= max(HOPELESS, 2 * spec.max_parallel) and all(
        trial.status is JobStatus.FAILED or trial.objective is None for trial in ended
    ):
        return Finish.HOPELESS
    return None


def _unasked(living: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    return tuple(trial for trial in living if trial.status is not JobStatus.STOPPING)


def _score(spec: TuningSpec, trial: TrialRecord) -> float:
    assert trial.objective is not None
    return spec.named(trial.definition).objective.score(trial.objective)
