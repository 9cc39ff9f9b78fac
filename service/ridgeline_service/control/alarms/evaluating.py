"""The state of an alarm, from the values of its metric: CloudWatch's rules. Pure.

CloudWatch looks at more periods than the alarm asks for, so that a few that are missing need not
be filled in: where there are as many values as it needs among them, the newest of these decide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ridgeline_service.control.alarms.definition import Definition, Missing
from ridgeline_service.store.alarms import AlarmState

EXTRA_PERIODS = 2
_SHOWN = 5


@dataclass(frozen=True)
class Point:
    """A period that has a value; ``at`` is when it begins, in seconds since the epoch."""

    at: float
    value: float


@dataclass(frozen=True)
class Verdict:
    """A state and why; ``points`` are those that were looked at, oldest first."""

    state: AlarmState
    reason: str
    points: tuple[Point, ...]


def judge(definition: Definition, points: Sequence[Point | None]) -> Verdict | None:
    """``points`` are the newest periods, oldest first, ``EXTRA_PERIODS`` more than the alarm asks
    for; None where one has no value. None: the state stays as it is, for want of data."""
    found = [point for point in points if point is not None]
    if len(found) >= definition.periods:
        used = found[-definition.periods :]
        return _said(definition, used, 0, _breaching(definition, used))
    lacking = definition.periods - len(found)
    breaching = _breaching(definition, found)
    match definition.missing:
        case Missing.BREACHING:
            return _said(definition, found, lacking, breaching + lacking)
        case Missing.NOT_BREACHING:
            return _said(definition, found, lacking, breaching)
    if breaching >= definition.to_alarm:
        return _said(definition, found, lacking, breaching)
    ignored = definition.missing is Missing.IGNORE
    if not found:
        return None if ignored else _unknown(lacking)
    if breaching == len(found) and _age(points) >= definition.to_alarm:
        # All that is known is bad, and has been for as long as it takes.
        return None if ignored else _said(definition, found, lacking, definition.to_alarm)
    return _said(definition, found, lacking, breaching)


def reason_data(definition: Definition, verdict: Verdict, now: float) -> str:
    """CloudWatch's StateReasonData."""
    return json.dumps(
        {
            "version": "1.0",
            "queryDate": _iso(now),
            **({"startDate": _iso(verdict.points[0].at)} if verdict.points else {}),
            "statistic": definition.statistic,
            "period": definition.period_s,
            "recentDatapoints": [point.value for point in verdict.points][-_SHOWN:],
            "threshold": definition.threshold,
        }
    )


def _breaching(definition: Definition, points: Sequence[Point]) -> int:
    return sum(definition.breaches(point.value) for point in points)


def _age(points: Sequence[Point | None]) -> int:
    """How many periods ago the oldest value is, 1 for the newest period."""
    return next(len(points) - place for place, point in enumerate(points) if point is not None)


def _said(definition: Definition, used: Sequence[Point], lacking: int, breaching: int) -> Verdict:
    state = AlarmState.ALARM if breaching >= definition.to_alarm else AlarmState.OK
    crossed = state is AlarmState.ALARM
    kept = [point for point in used if definition.breaches(point.value) is crossed]
    parts = []
    if kept:
        shown = ", ".join(f"{point.value:g} ({_short(point.at)})" for point in kept[-_SHOWN:])
        was = "was" if len(kept) == 1 else "were"
        parts.append(
            f"{len(kept)} out of the last {_datapoints(len(used))} [{shown}] {was} "
            f"{'' if crossed else 'not '}{definition.words} the threshold "
            f"({definition.threshold:g})"
        )
    if lacking:
        was = "was" if lacking == 1 else "were"
        parts.append(f"{lacking} missing {was} treated as [{_treated(definition)}]")
    return Verdict(state, f"Threshold Crossed: {'; '.join(parts)}.", tuple(used))


def _datapoints(count: int) -> str:
    return "1 datapoint" if count == 1 else f"{count} datapoints"


def _treated(definition: Definition) -> str:
    names = {Missing.BREACHING: "Breaching", Missing.NOT_BREACHING: "NonBreaching"}
    return names.get(definition.missing, "Missing")


def _unknown(lacking: int) -> Verdict:
    was = "was" if lacking == 1 else "were"
    reason = f"Insufficient Data: {_datapoints(lacking)} {was} unknown."
    return Verdict(AlarmState.INSUFFICIENT_DATA, reason, ())


def _short(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d/%m/%y %H:%M:%S")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
