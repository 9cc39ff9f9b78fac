"""When a scheduled action is due: ``at(...)``, ``rate(...)`` and ``cron(...)`` of AWS.

Times are seconds since the epoch. Pure: knows no rows and no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from ridgeline_service.errors import ValidationException

_EXPRESSION = re.compile(r"(at|rate|cron)\((.*)\)")
_RATE = re.compile(r"([1-9]\d{0,5}) (minute|hour|day)(s?)")
_UNITS_S = {"minute": 60, "hour": 3600, "day": 86400}
_WINDOWS_S = (3600.0, 86400.0, 40 * 86400.0)
_FIELDS = 6
_YEARS = range(1970, 2200)
_FORMS = "Use at(yyyy-mm-ddThh:mm:ss), rate(N minutes|hours|days) or cron(six fields)."


@dataclass(frozen=True)
class Schedule:
    """``anchor`` is what a rate counts from; nothing is due after ``end``."""

    form: str
    text: str
    zone: ZoneInfo
    anchor: float
    end: float | None = None

    def after(self, moment: float) -> float | None:
        """The first time later than that, and not before the anchor; None if there is none."""
        moment = max(moment, self.anchor - 1)
        match self.form:
            case "at":
                found = _at(self.text, self.zone)
                later = found if found > moment else None
            case "rate":
                each = _rate_s(self.text)
                passed = (moment - self.anchor) // each
                later = self.anchor + max(0, passed + 1) * each
            case _:
                later = next(_cron_times(self.text, self.zone, moment), None)
        return later if later is None or self.end is None or later <= self.end else None

    def latest(self, first: float, now: float) -> float:
        """The last time due by now, of which ``first`` was one: what a service that was down has
        missed is made up for once."""
        for window in _WINDOWS_S:
            if first < now - window:
                late = self.after(now - window)
                if late is not None and late <= now:
                    first = late
                    break
        while (later := self.after(first)) is not None and later <= now:
            first = later
        return first


def schedule_of(
    expression: str, timezone: str, anchor: float, end: float | None = None
) -> Schedule:
    """Raises ValidationException."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationException(
            f"Timezone {timezone[:100]!r} is not known.", hint="Use a name such as Europe/Berlin."
        ) from error
    found = _EXPRESSION.fullmatch(expression.strip())
    if found is None:
        raise ValidationException(f"Schedule {expression[:100]!r} is no schedule.", hint=_FORMS)
    schedule = Schedule(found.group(1), found.group(2).strip(), zone, anchor, end)
    try:
        schedule.after(anchor)
    except (ValueError, OverflowError, CronSimError) as error:
        text = f"Schedule {expression[:100]!r} is no schedule: {error}."
        raise ValidationException(text, hint=_FORMS) from error
    return schedule


def _at(text: str, zone: ZoneInfo) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone).timestamp()


def _rate_s(text: str) -> int:
    found = _RATE.fullmatch(text)
    if found is None or (found.group(1) == "1") == bool(found.group(3)):
        raise ValueError(f"{text!r} is no rate such as 1 hour or 5 minutes")
    return int(found.group(1)) * _UNITS_S[found.group(2)]


def _cron_times(text: str, zone: ZoneInfo, moment: float) -> Iterator[float]:
    """AWS counts days of the week from 1 (Sunday), has ``?`` for the one of day and weekday that
    is not given, and a year. The rest is what cronsim reads."""
    fields = text.upper().split()
    if len(fields) != _FIELDS:
        raise ValueError(f"it has {len(fields)} of {_FIELDS} fields")
    minute, hour, day, month, weekday, year = fields
    if (day == "?") == (weekday == "?"):
        raise ValueError("one of day of month and day of week must be ?, and the other not")
    years = _years(year)
    spec = f"{minute} {hour} {day.replace('?', '*')} {month} {_weekday(weekday)}"
    begin = datetime.fromtimestamp(moment, UTC).astimezone(zone)
    for wanted in sorted(each for each in years if each >= begin.year):
        # From the year's first moment: minute by minute through the years between takes for ever.
        first = datetime(wanted, 1, 1, tzinfo=zone) - timedelta(seconds=1)
        for found in CronSim(spec, max(begin, first)):
            if found.year != wanted:
                break
            yield found.timestamp()


def _weekday(field: str) -> str:
    if field in ("?", "L"):
        return {"?": "*", "L": "6"}[field]

    def from_sunday(found: re.Match[str]) -> str:
        if not 1 <= int(found.group()) <= 7:
            raise ValueError(f"{found.group()} is no day of the week from 1 (SUN) to 7 (SAT)")
        return str(int(found.group()) - 1)

    return re.sub(r"(?<![#/\d])\d+", from_sunday, field)


def _years(field: str) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, dash, high = span.partition("-")
        first = _YEARS.start if low == "*" else int(low)
        last = int(high) if dash else first
        if low == "*" or (step and not dash):
            last = _YEARS.stop - 1
        found.update(range(first, last + 1, int(step or 1)))
    if not found or not found <= set(_YEARS):
        raise ValueError(f"{field} is no year from {_YEARS.start} to {_YEARS.stop - 1}")
    return frozenset(found)
