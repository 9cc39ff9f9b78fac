"""When scheduled actions are due, and what they do to a scalable target."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.scaling.resources import ObjectNotFound
from ridgeline_service.control.scaling.schedules import schedule_of
from ridgeline_service.errors import ValidationException

from .test_scaling import RESOURCE, Scaled

BEGIN = datetime(2026, 11, 23, 0, 0, 30, tzinfo=UTC)  # a Monday


def due(expression: str, zone: str = "UTC", begin: datetime = BEGIN) -> str:
    found = schedule_of(expression, zone, begin.timestamp()).after(begin.timestamp())
    return "never" if found is None else f"{datetime.fromtimestamp(found, UTC):%a %Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("expression", "zone", "expected"),
    [
        ("at(2026-12-01T08:00:00)", "UTC", "Tue 2026-12-01 08:00"),
        ("at(2026-12-01T08:00:00)", "Europe/Berlin", "Tue 2026-12-01 07:00"),
        ("at(2026-11-22T08:00:00)", "UTC", "never"),
        ("rate(1 hour)", "UTC", "Mon 2026-11-23 01:00"),
        ("rate(2 days)", "UTC", "Wed 2026-11-25 00:00"),
        ("cron(0 8 ? * MON-FRI *)", "UTC", "Mon 2026-11-23 08:00"),
        ("cron(0 8 ? * 2-6 *)", "America/New_York", "Mon 2026-11-23 13:00"),
        ("cron(0 8 ? * 1,7 *)", "UTC", "Sat 2026-11-28 08:00"),
        ("cron(0/15 * * * ? *)", "UTC", "Mon 2026-11-23 00:15"),
        ("cron(0 20 ? * 6L *)", "UTC", "Fri 2026-11-27 20:00"),
        ("cron(0 9 ? * 3#2 *)", "UTC", "Tue 2026-12-08 09:00"),
        ("cron(30 6 L * ? *)", "UTC", "Mon 2026-11-30 06:30"),
        ("cron(0 8 1 1 ? 2028-2030)", "UTC", "Sat 2028-01-01 08:00"),
        ("cron(0 8 1 1 ? 2020/5)", "UTC", "Tue 2030-01-01 08:00"),
        ("cron(0 8 1 1 ? 2025)", "UTC", "never"),
        ("cron(* * ? * * 2199)", "UTC", "Tue 2199-01-01 00:00"),
        ("cron(0 0 29 2 ? 2027-2031)", "UTC", "Tue 2028-02-29 00:00"),
        ("cron(30 1 * * ? 2027)", "America/New_York", "Fri 2027-01-01 06:30"),
    ],
)
def test_a_schedule_is_due_when_aws_says_so(expression, zone, expected):
    assert due(expression, zone) == expected


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("every monday", "no schedule"),
        ("at(tomorrow)", "tomorrow"),
        ("rate(1 minutes)", "1 minutes"),
        ("rate(5 minute)", "5 minute"),
        ("rate(0 hours)", "0 hours"),
        ("rate(999999999 days)", "no rate"),
        ("cron(0 8 * * *)", "5 of 6 fields"),
        ("cron(0 8 * * * *)", "must be"),
        ("cron(0 8 ? * 8 *)", "8 is no day of the week"),
        ("cron(0 25 * * ? *)", "hour"),
        ("cron(0 8 * * ? 1815)", "1815"),
        ("cron(0 8 * * ? soon)", "SOON"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_wrong(expression, named):
    with pytest.raises(ValidationException, match=named):
        schedule_of(expression, "UTC", BEGIN.timestamp())


def test_a_timezone_is_a_known_one():
    for zone in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ValidationException, match="Timezone"):
            schedule_of("rate(1 hour)", zone, 0.0)


@given(st.integers(1, 500), st.sampled_from(["minutes", "hours", "days"]), st.floats(0, 4e8))
def test_what_was_missed_is_the_last_time_and_the_next_comes_after(number, unit, away):
    text = f"{number} {unit if number > 1 else unit[:-1]}"
    begin = BEGIN.timestamp()
    schedule = schedule_of(f"rate({text})", "UTC", begin)
    first = schedule.after(begin)
    now = first + away
    last, later = schedule.latest(first, now), schedule.after(now)
    assert first <= last <= now < later
    assert later - last == first - begin


def test_of_a_crons_missed_times_the_last_counts_however_long_nobody_looked():
    schedule = schedule_of("cron(0 8 ? * MON *)", "UTC", BEGIN.timestamp())
    first = schedule.after(BEGIN.timestamp())
    for days in (0, 1, 8, 300, 1000):
        now = first + days * 86400 + 5
        last = schedule.latest(first, now)
        assert datetime.fromtimestamp(last, UTC).weekday() == 0
        assert 0 <= now - last < 7 * 86400


@pytest.fixture
def scaled(world):
    world.now = BEGIN.timestamp()
    world.deploy("e")
    made = Scaled(world, 1, 1)
    yield made
    made.samples.close()


def put(scaled, name: str = "day", **values: object) -> None:
    request = {**RESOURCE, "ScheduledActionName": name, **values}
    scaled.world.plane.scheduled_actions.put(request)


def shown(scaled) -> list:
    asked = {"ServiceNamespace": "sagemaker"}
    return scaled.world.plane.scheduled_actions.describe(asked)["ScheduledActions"]


def pass_to(scaled, moment: datetime) -> None:
    scaled.world.now = moment.timestamp()
    scaled.look()
    scaled.world.settle()
    scaled.world.plane.scale_once()


def test_more_instances_by_day_and_fewer_by_night(scaled):
    put(
        scaled,
        Schedule="cron(0 8 * * ? *)",
        ScalableTargetAction={"MinCapacity": 3, "MaxCapacity": 4},
    )
    put(
        scaled,
        "night",
        Schedule="cron(0 20 * * ? *)",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1},
    )
    counts = []
    for hours in (7, 8, 9, 20, 32):
        pass_to(scaled, BEGIN + timedelta(hours=hours))
        counts.append((scaled.count, len(scaled.world.serving("e"))))
    assert counts == [(1, 1), (3, 3), (3, 3), (1, 1), (3, 3)]
    # Down for two days, until ten in the morning: the day's bounds hold, which came last.
    pass_to(scaled, BEGIN + timedelta(days=3, hours=10))
    assert scaled.count == 3


def test_a_single_time_passes_once_and_is_gone(scaled):
    put(scaled, Schedule="at(2026-11-23T01:00:00)", ScalableTargetAction={"MaxCapacity": 2})
    put(scaled, "low", Schedule="at(2026-11-23T01:00:00)", ScalableTargetAction={"MinCapacity": 2})
    pass_to(scaled, BEGIN + timedelta(hours=1))
    assert scaled.count == 2
    assert shown(scaled) == []


def test_suspended_schedules_pass_and_an_end_is_kept(scaled):
    put(
        scaled,
        Schedule="rate(1 hour)",
        EndTime=BEGIN + timedelta(hours=3, minutes=30),
        ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 2},
    )
    scaled.register(1, 1, SuspendedState={"ScheduledScalingSuspended": True})
    pass_to(scaled, BEGIN + timedelta(hours=1, minutes=5))
    assert scaled.count == 1
    scaled.register(1, 1, SuspendedState={"ScheduledScalingSuspended": False})
    pass_to(scaled, BEGIN + timedelta(hours=2, minutes=5))
    assert scaled.count == 2
    pass_to(scaled, BEGIN + timedelta(hours=4))
    assert shown(scaled) == []


def test_what_is_put_is_described_changed_and_deleted(scaled):
    put(
        scaled,
        Schedule="rate(1 hour)",
        StartTime=BEGIN + timedelta(days=1),
        ScalableTargetAction={"MinCapacity": 2},
    )
    put(scaled, Timezone="Europe/Berlin")
    (found,) = shown(scaled)
    assert (found["Schedule"], found["Timezone"]) == ("rate(1 hour)", "Europe/Berlin")
    assert found["ScalableTargetAction"] == {"MinCapacity": 2}
    assert "StartTime" not in found  # left out, it is dropped, as in AWS
    named = {**RESOURCE, "ScheduledActionName": "day"}
    scaled.world.plane.scheduled_actions.delete(named)
    assert shown(scaled) == []
    with pytest.raises(ObjectNotFound, match="day"):
        scaled.world.plane.scheduled_actions.delete(named)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ScalableTargetAction": {"MinCapacity": 1}}, "Schedule is required"),
        ({"Schedule": "rate(1 hour)"}, "neither MinCapacity nor MaxCapacity"),
        (
            {"Schedule": "rate(1 hour)", "ScalableTargetAction": {"MinCapacity": -1}},
            "must be 1 or more",
        ),
        (
            {
                "Schedule": "rate(1 hour)",
                "ScalableTargetAction": {"MinCapacity": 3, "MaxCapacity": 2},
            },
            "greater than maximum",
        ),
        (
            {"Schedule": "at(2020-01-01T00:00:00)", "ScalableTargetAction": {"MinCapacity": 1}},
            "never due",
        ),
    ],
)
def test_an_action_that_could_not_be_run_is_refused(scaled, values, named):
    with pytest.raises(ValidationException, match=named):
        put(scaled, **values)
