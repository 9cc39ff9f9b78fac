"""One training job as the client sees it: looked at, waited for with its log, stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ridgeline._logs import Follower, LogLine, Source, follow, last_lines, tail
from ridgeline.errors import NotFound, NotReady, RidgelineError, TrainingFailed, Unavailable

if TYPE_CHECKING:
    from ridgeline.session import Session

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ENDED = frozenset({"Completed", "Failed", "Stopped"})

# The control plane may be restarted while we wait: it comes back in seconds and loses nothing.
_PATIENCE_S = 60.0
_LOG_LINES = 20
_POLL_S = 0.5
_AWS_POLL_S = 5.0
_LOG_HEADING = "\nLast log lines:\n"


class TrainingJob:
    """A job of this name. Nothing is asked of the service before the first call."""

    def __init__(self, name: str, sagemaker_session: Session) -> None:
        self.name = name
        self.sagemaker_session = sagemaker_session

    def __repr__(self) -> str:
        return f"TrainingJob({self.name!r})"

    @property
    def job_name(self) -> str:
        return self.name

    def describe(self) -> dict[str, Any]:
        """DescribeTrainingJob. Raises NotFound if there is no such job."""
        session = self.sagemaker_session
        with session.call():
            answer = session.sagemaker_client.describe_training_job(TrainingJobName=self.name)
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}

    @property
    def status(self) -> str:
        return str(self.describe()["TrainingJobStatus"])

    @property
    def model_data(self) -> str:
        """Where its model lies. Raises NotReady before it is there."""
        found = self.describe()
        uri = (found.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
        if not uri:
            raise NotReady(
                f"Training job {self.name!r} has no model: it is {found['TrainingJobStatus']}.",
                hint=f"See `ridgeline describe {self.name}`.",
            )
        return str(uri)

    def stop(self) -> None:
        """Ask it to end; its artifacts are kept. ``wait`` tells when it has."""
        session = self.sagemaker_session
        with session.call():
            session.sagemaker_client.stop_training_job(TrainingJobName=self.name)

    def logs(self, last: int = 100) -> list[LogLine]:
        """What its instances wrote last. Raises NotFound before they wrote anything."""
        return tail(self.sagemaker_session, self.source, last)

    def follow(self, last: int = 100) -> Iterator[LogLine]:
        """The last lines, then every new one until the job has ended."""
        return follow(self.sagemaker_session, self.source, last)

    @property
    def source(self) -> Source:
        """Its log streams."""
        return Source(LOG_GROUP, f"{self.name}/", lambda _: self.status not in ENDED)

    def wait(self, *, logs: bool = True, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until it has ended, showing its stages and with ``logs`` what it writes.

        Raises TrainingFailed with its reason and last lines if it failed or was stopped, NotReady
        after ``timeout_s`` seconds, Unavailable if the service stays away for a minute. Ctrl-C
        leaves the job as it is.
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
                    if described["TrainingJobStatus"] in ENDED:
                        self._check(described)
                        return described
                except Unavailable:
                    if clock.monotonic() - seen > _PATIENCE_S:
                        raise
                if timeout_s is not None and clock.monotonic() - begin > timeout_s:
                    raise NotReady(
                        f"Training job {self.name!r} has not ended after {timeout_s:g} s.",
                        hint=self._how_to_go_on(),
                    )
                clock.sleep(_AWS_POLL_S if session.is_aws else _POLL_S)
        except KeyboardInterrupt:
            session.progress.note(
                f"Training job {self.name!r} goes on by itself. {self._how_to_go_on()}"
            )
            raise

    def _how_to_go_on(self) -> str:
        return (
            f"Follow it with `ridgeline logs -f {self.name}`, end it with "
            f"`ridgeline stop {self.name}`."
        )

    def _check(self, described: Mapping[str, Any]) -> None:
        status = described["TrainingJobStatus"]
        if status == "Completed" or described.get("SecondaryStatus") == "MaxRuntimeExceeded":
            # What a job made in the time it was given is a result.
            return
        reason = str(described.get("FailureReason") or described.get("SecondaryStatus") or "")
        cause, _, last = reason.partition(_LOG_HEADING)
        try:
            lines = last_lines(self.sagemaker_session, self.source, _LOG_LINES)
        except RidgelineError:
            # The failure is the news; that its log cannot be read is not.
            lines = tuple(last.splitlines())
        words = "failed" if status == "Failed" else "was stopped"
        raise TrainingFailed(
            f"Training job {self.name!r} {words}: {cause}",
            log_tail=lines,
            hint=f"See `ridgeline logs {self.name}`.",
        )


class _Shown:
    """What a wait has shown already: transitions once, log lines as they come."""

    def __init__(self, job: TrainingJob, *, logs: bool) -> None:
        self._progress = job.sagemaker_session.progress
        self._reader = Follower(job.sagemaker_session, job.source) if logs else None
        self._transitions = 0
        self._message = ""

    def update(self, described: Mapping[str, Any]) -> None:
        transitions = described.get("SecondaryStatusTransitions") or []
        ended = described["TrainingJobStatus"] in ENDED
        if ended:
            self._lines()  # what it wrote stands before its end
        for item in transitions[self._transitions :]:
            self._say(item)
        if transitions and len(transitions) == self._transitions:
            self._say(transitions[-1])
        self._transitions = len(transitions)
        if not ended:
            self._lines()

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
