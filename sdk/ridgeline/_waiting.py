"""Waiting until an endpoint serves, or saying why it does not.

Knows when to look again and when to give up; shows nothing itself (``_progress`` does) and reads
no clock but the session's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ridgeline._endpoints import FAILED, IN_SERVICE, EndpointView, describe, look
from ridgeline._logs import last_lines, of_endpoint
from ridgeline.errors import (
    LOG_HEADING,
    DeployFailed,
    NotFound,
    NotReady,
    RidgelineError,
    Unavailable,
)

if TYPE_CHECKING:
    from ridgeline.session import Session

# The control plane may be restarted while we wait: it comes back in seconds and loses nothing.
_PATIENCE_S = 60.0
_LOG_LINES = 20


def wait_for_endpoint(
    session: Session,
    name: str,
    *,
    title: str,
    config: str | None = None,
    timeout_s: float | None = None,
) -> EndpointView:
    """Wait until ``name`` is InService; with ``config``, until it is so with that configuration.

    Raises DeployFailed if it ends in Failed, was rolled back or is deleted meanwhile; NotReady
    after ``timeout_s`` seconds; Unavailable if the service stays away for a minute. Ctrl-C leaves
    the endpoint as it is, says how to follow or delete it, and goes on as KeyboardInterrupt.
    """
    clock = session.clock
    begin = seen = clock.monotonic()
    try:
        with session.progress.waiting(title) as display:
            for pause in _pauses(session.is_aws):
                try:
                    view = look(session, name)
                    seen = clock.monotonic()
                    display.update(view)
                    if view.status == IN_SERVICE:
                        _check_config(session, view, config)
                        return view
                    if view.status in FAILED:
                        raise _failure(session, view)
                except NotFound:
                    raise DeployFailed(f"Endpoint {name!r} was deleted while we waited.") from None
                except Unavailable:
                    if clock.monotonic() - seen > _PATIENCE_S:
                        raise
                if timeout_s is not None and clock.monotonic() - begin > timeout_s:
                    raise NotReady(
                        f"Endpoint {name!r} is not InService after {timeout_s:g} s.",
                        hint=_how_to_go_on(name),
                    )
                clock.sleep(pause)
    except KeyboardInterrupt:
        session.progress.note(f"Endpoint {name!r} is left as it is. {_how_to_go_on(name)}")
        raise
    raise AssertionError("the pauses never end")


def wait_until_deleted(session: Session, name: str, *, timeout_s: float = 300.0) -> None:
    """Wait until endpoint ``name`` is gone. Raises NotReady after ``timeout_s`` seconds."""
    clock = session.clock
    begin = clock.monotonic()
    for pause in _pauses(session.is_aws):
        try:
            describe(session, name)
        except NotFound:
            return
        if clock.monotonic() - begin > timeout_s:
            raise NotReady(
                f"Endpoint {name!r} is still being deleted after {timeout_s:g} s.",
                hint=f"It goes on by itself: see `ridgeline describe {name}`.",
            )
        clock.sleep(pause)


def _pauses(is_aws: bool) -> Iterator[float]:
    """Seconds between looks: close together at first, as most local deploys take seconds."""
    pause, most = (5.0, 15.0) if is_aws else (0.25, 2.0)
    while True:
        yield pause
        pause = min(pause * 1.2, most)


def _how_to_go_on(name: str) -> str:
    return f"Follow it with `ridgeline logs -f {name}`, delete it with `ridgeline delete {name}`."


def _check_config(session: Session, view: EndpointView, config: str | None) -> None:
    if config is None:
        return
    answer = describe(session, view.name)
    if answer.get("EndpointConfigName") == config:
        return
    cause = _cause(view.failure_reason or str(answer.get("FailureReason", "")))
    raise DeployFailed(
        f"The update of endpoint {view.name!r} was rolled back: {cause}",
        log_tail=view.log_tail,
        hint=view.hint or "The version before it still serves.",
    )


def _cause(reason: str) -> str:
    """Without the lines of the log, which are shown beside it."""
    return reason.partition(LOG_HEADING)[0] or "no reason was given"


def _failure(session: Session, view: EndpointView) -> DeployFailed:
    tail = view.log_tail
    if not tail:
        try:
            tail = last_lines(session, of_endpoint(view.name), _LOG_LINES)
        except RidgelineError:
            # The failure is the news; that its log cannot be read is not.
            tail = ()
    return DeployFailed(
        f"Endpoint {view.name!r} failed: {_cause(view.failure_reason)}",
        log_tail=tail,
        hint=view.hint or f"See `ridgeline logs {view.name}`.",
    )
