"""One instance of a job that runs a script, from its order to its ending.

    environment -> Downloading -> Training or Processing -> Uploading -> an ending in the report

Told to stop for a reason, the script gets its grace and the artifacts are uploaded; when the
service goes down, its checkpoints are kept and it will go on later.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.runtime.sandbox import Limits
from ridgeline_service.runtime.usage import usage_of
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.contract import contract_of, in_turn
from ridgeline_service.training.failing import last_error, script_failed
from ridgeline_service.training.gpu_usage import gpu_usage
from ridgeline_service.training.layout import Layout
from ridgeline_service.training.order import Order
from ridgeline_service.training.output import Output
from ridgeline_service.training.preparing import Preparation, Prepared, say
from ridgeline_service.training.running import JobRunner
from ridgeline_service.training.sandboxing import command_line, environment
from ridgeline_service.training.script import Ended, Script
from ridgeline_service.training.searching import MetricSearch
from ridgeline_service.training.supervising import Finished, Rules, until_ended
from ridgeline_service.training.watching import Series, disk_usage

INTERRUPTED_GRACE_S = 3.0
_OBSERVATIONS_BETWEEN_USAGE = 5
_SIGNALS_OF_STOPPED = (signal.SIGTERM, signal.SIGKILL)
_ENDS_OF_STOPPED = (0, 128 + signal.SIGTERM, 128 + signal.SIGKILL)


class ScriptRunner(JobRunner):
    """By the contract of the order's kind."""

    def __init__(
        self,
        folder: Path,
        order: Order,
        reader: S3Reader,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(folder, order, now=now)
        self._monotonic = monotonic
        self._layout = Layout(folder / "scratch" / "ml")
        self._search = MetricSearch(order.metrics, say)
        self._output = Output(lambda line: self._search.add(line, self.now_us()))
        self._output_lock = threading.Lock()
        self._series = Series(order)
        self._observed = 0
        self._lost: JobFailed | None = None
        self._preparation = Preparation(order, self._layout, reader, folder, self.check_stop)
        self._contract = contract_of(order, self._layout, reader, folder, self.check_stop)

    def work(self) -> Cause:
        stopped = self._run_script(self._prepare())
        if stopped is not Cause.INTERRUPTED:
            upload = partial(
                self._contract.upload, self._reporter, stopped=stopped is not Cause.NONE
            )
            in_turn((self._raise_lost, upload))
        return stopped

    def close(self) -> None:
        self._search.close(wait_s=0.0)
        self._series.close()

    def _prepare(self) -> Prepared:
        self._layout.make(self._contract.folders)
        self._contract.check()
        packages = self._preparation.environment()
        self._reporter.enter("Downloading", "Downloading input data")
        # As on SageMaker, it counts from here: an instance with its image is there.
        self._reporter.change(training_started_at=self._reporter.report.transitions[-1].at)
        self._preparation.data()
        self._contract.make()
        self._contract.configure()
        return self._preparation.command(packages)

    def _run_script(self, prepared: Prepared) -> Cause:
        """Run the script to its end; why it was stopped, if it was. Raises JobFailed."""
        self.check_stop()
        script = self._start(prepared)
        self._contract.started()
        rules = Rules(
            max_runtime_s=self._order.max_runtime_s,
            why_stop=self.why_stop,
            observe=lambda: self._observe(script),
            grace_s=self._grace_s,
        )
        try:
            finished = until_ended(script, rules, self._monotonic)
        finally:
            script.kill()
        with self._output_lock:
            self._output.close()
        ended_at = self.now_us()
        self._search.close()
        self._series.metrics(self._search.take_fresh())
        self._reporter.change(training_ended_at=ended_at, metrics=self._search.metrics)
        try:
            self._contract.ended(self._reporter)
        except JobFailed as error:
            self._lost = error  # how the script ended, and what else it made, goes before
        self._check_ended(finished, prepared)
        return finished.stopped

    def _raise_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _start(self, prepared: Prepared) -> Script:
        order, scratch = self._order, self._folder / "scratch"
        facts = self._contract.variables()
        script = Script(self._take, take_errors=partial(self._take, is_error=True))
        try:
            script.start(
                command_line(
                    order, prepared.command, prepared.packages, scratch, self._layout.root
                ),
                environment(order, prepared.packages, facts, prepared.pip),
                data_bytes=order.confinement.memory_bytes,
                processes=Limits().processes,
                file_bytes=order.confinement.volume_bytes,
            )
        except ValueError as error:
            message = (
                f"The script could not be started: {error}. No hyperparameter, argument or "
                "variable can hold that."
            )
            raise JobFailed(Cause.CODE_INVALID, message) from error
        except OSError as error:
            message = f"The script could not be started: {error}."
            raise JobFailed(Cause.LAUNCH_FAILED, message) from error
        self._reporter.enter(*self._contract.stage)
        return script

    def _check_ended(self, finished: Finished, prepared: Prepared) -> None:
        """Raises JobFailed unless the script ended well or was stopped by somebody's wish."""
        if finished.stopped is Cause.DISK_FULL:
            size = self._order.confinement.volume_bytes / 2**30
            raise JobFailed(
                Cause.DISK_FULL,
                f"The script wrote more than the {size:.0f} GiB of its VolumeSizeInGB.",
                self._output.tail,
                "Raise VolumeSizeInGB, or write less.",
            )
        if finished.stopped is not Cause.NONE:
            self._tell_how_it_stopped(finished.ended)
        elif finished.ended.code != 0:
            said, output = self._contract.failure(), self._output
            failed = script_failed(
                self._order,
                finished.ended,
                prepared.command,
                output.tail,
                said,
                errors=output.errors,
            )
            try:
                self._contract.rescue()
            except JobFailed as lost:
                raise failed from lost  # why the script failed is what its user needs first
            raise failed

    def _tell_how_it_stopped(self, ended: Ended) -> None:
        """A script that failed when it was to end may not have kept what it should."""
        if ended.code not in _ENDS_OF_STOPPED and ended.signal not in _SIGNALS_OF_STOPPED:
            words = f"The script was asked to stop and ended with {ended.words}"
            error = last_error(self._output.tail, self._output.errors)
            self._reporter.enter("Stopping", f"{words}: {error}" if error else words)

    def _grace_s(self, cause: Cause) -> float:
        if cause is Cause.DISK_FULL:
            return 0.0
        grace = self._order.stop_grace_s
        return min(grace, INTERRUPTED_GRACE_S) if cause is Cause.INTERRUPTED else grace

    def _observe(self, script: Script) -> Cause:
        """Bring what is known of the running script to the report and to CloudWatch."""
        if fresh := self._search.take_fresh():
            self._series.metrics(fresh)
            self._reporter.change(metrics=self._search.metrics)
        self._observed += 1
        if self._observed % _OBSERVATIONS_BETWEEN_USAGE == 1 and script.pid is not None:
            gpus = gpu_usage(self._order.confinement.gpus)
            self._series.use(usage_of(script.pid), gpus)
            if self._written_bytes() > self._order.confinement.volume_bytes:
                return Cause.DISK_FULL
        return Cause.NONE

    def _written_bytes(self) -> int:
        """What lies in the rooms that the script can write to, its input left out."""
        scratch, root = self._folder / "scratch", self._layout.root
        inner = [path for path in root.iterdir() if path.name != "input" and not path.is_symlink()]
        return disk_usage([scratch / "tmp", scratch / "home", *inner])

    def _take(self, data: bytes, *, is_error: bool = False) -> None:
        with self._output_lock:
            self._output.feed(data, is_error=is_error)
