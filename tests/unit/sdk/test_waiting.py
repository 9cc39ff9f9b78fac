"""Waiting for an endpoint: when it ends, how, and what is shown meanwhile."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from ridgeline._endpoints import EndpointView, Stage, parse_view
from ridgeline._progress import PlainProgress
from ridgeline._progress_rich import RichProgress
from ridgeline._waiting import wait_for_endpoint, wait_until_deleted
from ridgeline.errors import DeployFailed, NotReady, Unavailable
from ridgeline.session import Session


def view(status: str, **members: Any) -> dict[str, Any]:
    return {"name": "e", "status": status, **members}


def test_it_ends_when_the_endpoint_serves(fake: Any, session: Session, clock: Any) -> None:
    fake.endpoint("e", "Creating", "Creating", "InService")
    assert wait_for_endpoint(session, "e", title="t").status == "InService"
    assert len(clock.slept) == 2


def test_failure_brings_cause_hint_and_log(fake: Any, session: Session) -> None:
    failed = view(
        "Failed",
        failure_reason="no memory\nLast log lines:\nl2",
        hint="Take a larger type.",
        log_tail=["l1", "l2"],
    )
    fake.endpoint("e", "Creating", failed)
    with pytest.raises(DeployFailed, match="no memory") as caught:
        wait_for_endpoint(session, "e", title="t")
    assert caught.value.log_tail == ("l1", "l2")
    assert str(caught.value).count("l2") == 1
    assert caught.value.hint == "Take a larger type."


def test_a_hint_that_repeats_the_cause_is_left_out(fake: Any, session: Session) -> None:
    words = "The model data cannot be used."
    fake.endpoint("e", view("Failed", failure_reason=f"{words} No such key.", hint=words))
    with pytest.raises(DeployFailed) as caught:
        wait_for_endpoint(session, "e", title="t")
    assert str(caught.value).count(words) == 1
    assert "ridgeline logs e" in caught.value.hint


def test_the_log_is_fetched_where_the_answer_has_none(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.endpoint("e", view("Failed", failure_reason="x"))
    fake.on("DescribeLogStreams", sdk_tools.Reply({"logStreams": [{"logStreamName": "a/1"}]}))
    events = [{"timestamp": 1, "message": "boom"}]
    fake.on("GetLogEvents", sdk_tools.Reply({"events": events, "nextForwardToken": "t"}))
    with pytest.raises(DeployFailed) as caught:
        wait_for_endpoint(session, "e", title="t")
    assert caught.value.log_tail == ("boom",)


def test_a_log_that_cannot_be_read_hides_nothing(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.endpoint("e", view("Failed", failure_reason="the cause"))
    fake.rules["DescribeLogStreams"] = sdk_tools.aws_error("ResourceNotFoundException", "no group")
    with pytest.raises(DeployFailed, match="the cause"):
        wait_for_endpoint(session, "e", title="t")


def test_a_service_without_stages_is_asked_the_sagemaker_way(fake: Any, session: Session) -> None:
    fake.endpoint("e")
    del fake.rules["GET /api/endpoints/e"]
    assert wait_for_endpoint(session, "e", title="t").status == "InService"


def test_deletion_meanwhile_is_a_failure(fake: Any, session: Session, sdk_tools: Any) -> None:
    gone = sdk_tools.api_error("NotFound", "no", 404)
    fake.endpoint("e", "Creating")
    fake.rules["GET /api/endpoints/e"].append(gone)
    fake.rules["DescribeEndpoint"] = sdk_tools.aws_error(
        "ValidationException", 'Could not find endpoint "e".'
    )
    with pytest.raises(DeployFailed, match="deleted"):
        wait_for_endpoint(session, "e", title="t")


def test_a_restarting_service_is_waited_for(fake: Any, session: Session, sdk_tools: Any) -> None:
    away = sdk_tools.api_error("Unavailable", "restarting", 503)
    fake.endpoint("e")
    fake.rules["GET /api/endpoints/e"] = [away, away, sdk_tools.Reply(view("InService"))]
    assert wait_for_endpoint(session, "e", title="t").status == "InService"


def test_a_service_that_stays_away_is_given_up(
    fake: Any, session: Session, clock: Any, sdk_tools: Any
) -> None:
    fake.rules["GET /api/endpoints/e"] = sdk_tools.api_error("Unavailable", "down", 503)
    with pytest.raises(Unavailable):
        wait_for_endpoint(session, "e", title="t")
    assert 60 <= sum(clock.slept) < 70


def test_a_time_limit(fake: Any, session: Session, clock: Any) -> None:
    fake.endpoint("e", "Creating")
    with pytest.raises(NotReady, match="30 s") as caught:
        wait_for_endpoint(session, "e", title="t", timeout_s=30)
    assert "ridgeline delete e" in caught.value.hint
    assert sum(clock.slept) < 35


def test_ctrl_c_leaves_the_endpoint_and_says_how_to_go_on(
    fake: Any, session: Session, clock: Any
) -> None:
    out = io.StringIO()
    session.progress = PlainProgress(out)
    fake.endpoint("e", "Creating")

    def interrupt() -> None:
        raise KeyboardInterrupt

    clock.on_sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        wait_for_endpoint(session, "e", title="t")
    assert "ridgeline logs -f e" in out.getvalue()
    assert "ridgeline delete e" in out.getvalue()
    assert fake.operations() == []


def test_a_deletion_that_takes_too_long(fake: Any, session: Session, clock: Any) -> None:
    fake.endpoint("e")
    with pytest.raises(NotReady, match="still being deleted"):
        wait_until_deleted(session, "e", timeout_s=10)
    assert 10 <= sum(clock.slept) < 13


STAGES = [
    {"name": "create", "seconds": 0.1, "state": "done"},
    {"name": "download", "seconds": None, "state": "running", "progress": 5, "total": 10},
    {"name": "load", "seconds": None, "state": "waiting"},
]


def test_plain_lines_say_every_change_once(fake: Any, session: Session) -> None:
    out = io.StringIO()
    session.progress = PlainProgress(out)
    later = [
        {"name": "create", "seconds": 0.1, "state": "done"},
        {"name": "download", "seconds": 2.0, "state": "done"},
        {"name": "load", "seconds": 1.0, "state": "done"},
    ]
    running = view("Creating", stages=STAGES)
    fake.endpoint("e", running, running, view("InService", stages=later))
    wait_for_endpoint(session, "e", title="Deploying e")
    assert out.getvalue().splitlines() == [
        "Deploying e",
        "  create: done  0.1 s",
        "  download: running",
        "  e is Creating",
        "  download: done  2.0 s",
        "  load: done  1.0 s",
        "  e is InService",
    ]


def test_the_terminal_shows_the_stages() -> None:
    out = io.StringIO()
    progress = RichProgress(Console(file=out, force_terminal=True, width=80, color_system=None))
    with progress.waiting("Deploying e") as display:
        display.update(parse_view("e", view("Creating", stages=STAGES)))
        display.update(EndpointView("e", "InService", stages=(Stage("load", "done", 1.5),)))
    shown = out.getvalue()
    assert "Deploying e" in shown
    assert "1.5 s" in shown
    assert "InService" in shown


def test_a_display_is_closed_however_the_wait_ends(fake: Any, session: Session) -> None:
    events: list[str] = []

    class Recording(PlainProgress):
        @contextmanager
        def waiting(self, title: str) -> Any:
            events.append("open")
            try:
                with super().waiting(title) as display:
                    yield display
            finally:
                events.append("closed")

    session.progress = Recording(io.StringIO())
    fake.endpoint("e", view("Failed"))
    with pytest.raises(DeployFailed):
        wait_for_endpoint(session, "e", title="t")
    assert events == ["open", "closed"]


def test_a_view_bears_members_that_are_missing() -> None:
    assert parse_view("e", {}) == EndpointView("e", "Creating")
    assert parse_view("e", {"log_tail": "a\nb"}).log_tail == ("a", "b")
    assert Stage("x", done=5, total=0).fraction is None
    assert Stage("x", done=20, total=10).fraction == 1.0


def test_it_is_said_what_a_replica_waits_for(fake: Any, session: Session) -> None:
    waiting = {"id": "r", "variant": "all", "status": "pending", "message": "Waiting for memory."}
    waits = view("Creating", replicas=[waiting])
    ready = view("InService", replicas=[waiting | {"status": "ready", "message": "long gone"}])
    fake.endpoint("e", waits, waits, ready)
    text = io.StringIO()
    session.progress = PlainProgress(text)
    wait_for_endpoint(session, "e", title="t")
    assert text.getvalue().splitlines() == [
        "t", "  e is Creating", "  Waiting for memory.", "  e is InService",
    ]  # fmt: skip


def test_a_terminal_shows_what_a_replica_waits_for() -> None:
    replica = {"id": "r", "status": "pending", "message": "Waiting for memory."}
    text = io.StringIO()
    with RichProgress(Console(file=text, force_terminal=True, width=80)).waiting("t") as display:
        display.update(parse_view("e", view("Creating", replicas=[replica])))
    assert "Waiting for memory." in text.getvalue()
