"""One job of any kind as the client sees it: looked at, waited for with its log, stopped.

A kind says what its calls are named and where its log is. Kinds that report stages show them as
they come; the others show their status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ridgeline._logs import Follower, LogLine, Source, follow, last_lines, tail
from ridgeline.errors import (
    LOG_HEADING,
    FailedWithLog,
    NotFound,
    NotReady,
    RidgelineError,
    Unavailable,
)

if TYPE_CHECKING:
    from ridgeline.session import Session

ENDED = frozenset({"Completed", "Failed", "Stopped"})

# The control plane may be restarted while we wait: it comes back in seconds and loses nothing.
_PATIENCE_S = 60.0
_LOG_LINES = 20
_POLL_S = 0.5
_AWS_POLL_S = 5.0


class Job:
    """A job of this name. Nothing is asked of the service before the first call."""

    member: ClassVar[str]
    """As in ``TrainingJobName`` and ``CreateTrainingJob``."""
    words: ClassVar[str]
    failed: ClassVar[type[FailedWithLog]]

    def __init__(self, name: str, sagemaker_session: Session) -> None:
        self.name = name
        self.sagemaker_session = sagemaker_session

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def job_name(self) -> str:
        return self.name

    def describe(self) -> dict[str, Any]:
        """The service's description. Raises NotFound if there is no such job."""
        answer = self._call("describe")
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}

    @property
    def status(self) -> str:
        return str(self.describe()[f"{self.member}Status"])

    def stop(self) -> None:
        """Ask it to end; what it has made is kept. ``wait`` tells when it has."""
        self._call("stop")

    def logs(self, last: int = 100) -> list[LogLine]:
        """What its instances wrote last. Raises NotFound before they wrote anything."""
        return tail(self.sagemaker_session, self.source, last)

    def follow(self, last: int = 100) -> Iterator[LogLine]:
        """The last lines, then every new one until the job has ended."""
        return follow(self.sagemaker_session, self.source, last)

    @property
    def source(self) -> Source:
        """Its log streams."""
        group = f"/aws/sagemaker/{self.member}s"
        return Source(group, f"{self.name}/", lambda _: self.status not in ENDED)

    def wait(self, *, logs: bool = True, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until it has ended, showing its stages and with ``logs`` what it writes.

        Raises a FailedWithLog of its kind with its reason and last lines if it failed or was
        stopped, NotReady after ``timeout_s`` seconds, Unavailable if the service stays away for a
        minute. Ctrl-C leaves the job as it is.
        """
        session, clock = self.sagemaker_session, self.sagemaker_session.clock
        begin = seen = clock.monotonic()
        shown = _Shown(self, logs=logs)
        try:
            while True:
                try:
                    described = self.describe()
                    seen = clock.monotonic()
                    shown.update(described)
                    if described[f"{self.member}Status"] in ENDED:
                        self._check(described)
                        return described
                except Unavailable:
                    if clock.monotonic() - seen > _PATIENCE_S:
                        raise
                if timeout_s is not None and clock.monotonic() - begin > timeout_s:
                    raise NotReady(
                        f"{self.title} has not ended after {timeout_s:g} s.",
                        hint=self._how_to_go_on(),
                    )
                clock.sleep(_AWS_POLL_S if session.is_aws else _POLL_S)
        except KeyboardInterrupt:
            session.progress.note(f"{self.title} goes on by itself. {self._how_to_go_on()}")
            raise

    @property
    def title(self) -> str:
        return f"{self.words.capitalize()} {self.name!r}"

    def _call(self, verb: str) -> dict[str, Any]:
        session = self.sagemaker_session
        call = getattr(session.sagemaker_client, f"{verb}_{self.words.replace(' ', '_')}")
        with session.call():
            answer: dict[str, Any] = call(**{f"{self.member}Name": self.name})
        return answer

    def _how_to_go_on(self) -> str:
        return (
            f"Follow it with `ridgeline logs -f {self.name}`, end it with "
            f"`ridgeline stop {self.name}`."
        )

    def _check(self, described: Mapping[str, Any]) -> None:
        status = described[f"{self.member}Status"]
        if status == "Completed" or described.get("SecondaryStatus") == "MaxRuntimeExceeded":
            # What a job made in the time it was given is a result.
            return
        reason = str(described.get("FailureReason") or described.get("SecondaryStatus") or "")
        cause, _, last = reason.partition(LOG_HEADING)
        try:
            lines = last_lines(self.sagemaker_session, self.source, _LOG_LINES)
        except RidgelineError:
            # The failure is the news; that its log cannot be read is not.
            lines = tuple(last.splitlines())
        words = "failed" if status == "Failed" else "was stopped"
        raise self.failed(
            f"{self.title} {words}: {cause}",
            log_tail=lines,
            hint=f"See `ridgeline logs {self.name}`.",
        )


class _Shown:
    """What a wait has shown already: transitions once, log lines as they come."""

    def __init__(self, job: Job, *, logs: bool) -> None:
        self._member = job.member
        self._progress = job.sagemaker_session.progress
        self._reader = Follower(job.sagemaker_session, job.source) if logs else None
        self._transitions = 0
        self._message = ""

    def update(self, described: Mapping[str, Any]) -> None:
        transitions = described.get("SecondaryStatusTransitions") or [self._stage(described)]
        ended = described[f"{self._member}Status"] in ENDED
        if ended:
            self._lines()  # what it wrote stands before its end
        for item in transitions[self._transitions :]:
            self._say(item)
        if transitions and len(transitions) == self._transitions:
            self._say(transitions[-1])
        self._transitions = len(transitions)
        if not ended:
            self._lines()

    def _stage(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """The status of a kind without stages, since it is so."""
        kind = self._member.removesuffix("Job")
        known = (described.get(f"{kind}{moment}Time") for moment in ("End", "Start"))
        began = next((at for at in known if at is not None), described["CreationTime"])
        status = described[f"{self._member}Status"]
        # Of a job that has not ended it is what the job waits for; that of a failure is raised.
        waits_for = "" if status in ENDED else described.get("FailureReason", "")
        message = described.get("ExitMessage") or waits_for
        return {"Status": status, "StartTime": began, "StatusMessage": message}

    def _say(self, item: Mapping[str, Any]) -> None:
        text = f"{item['Status']} - {item.get('StatusMessage', '')}".rstrip(" -")
        if text != self._message:
            self._message = text
            self._progress.note(f"{item['StartTime']:%Y-%m-%d %H:%M:%S} {text}")

    def _lines(self) -> None:
        if self._reader is None:
            return
        try:
            self._reader.find_streams()
        except NotFound:
            return
        for line in self._reader.fresh():
            self._progress.note(line.text)
