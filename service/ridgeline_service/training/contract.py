"""What one kind of job promises to user code, and what becomes of what that leaves behind.

The runner takes a job from its order to its ending; a contract says what lies where, what runs and
what is uploaded. Everything here raises JobFailed for what the user can put right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.training import toolkit
from ridgeline_service.training.artifacts import Artifacts, is_empty
from ridgeline_service.training.causes import JobFailed
from ridgeline_service.training.checkpoints import Checkpoints
from ridgeline_service.training.layout import INSIDE, Layout
from ridgeline_service.training.order import Order, OutputFolder, Processing
from ridgeline_service.training.preparing import say
from ridgeline_service.training.report import Reporter

_MESSAGE_BYTES = 1024


class Contract(ABC):
    """In the order in which the runner calls it."""

    stage: ClassVar[tuple[str, str]]
    """The status while the script runs, and what is shown beside it."""

    folders: ClassVar[tuple[str, ...]]
    """What is there below /opt/ml before anything else."""

    @abstractmethod
    def check(self) -> None:
        """Find out before the work whether its result can be kept."""

    @abstractmethod
    def make(self) -> None:
        """The folders that the script finds, and what they hold from earlier attempts."""

    @abstractmethod
    def configure(self) -> None:
        """The files that tell the script what it is part of."""

    @abstractmethod
    def variables(self) -> Mapping[str, str]:
        """What the script finds in its environment, whatever the user set."""

    @abstractmethod
    def started(self) -> None:
        """The script runs: begin what goes on beside it."""

    @abstractmethod
    def ended(self, reporter: Reporter) -> None:
        """The script has ended, however it did: end what went on beside it, all of it before this
        raises what failed."""

    @abstractmethod
    def failure(self) -> str:
        """What the script wrote about its failure; empty if nothing."""

    @abstractmethod
    def rescue(self) -> None:
        """Upload what is kept of a script that failed."""

    @abstractmethod
    def upload(self, reporter: Reporter, *, stopped: bool) -> None:
        """Upload what the script made; ``stopped`` before its end, it may lack anything."""


class TrainingContract(Contract):
    """/opt/ml/model and /opt/ml/output/data become archives; checkpoints go both ways, and what
    TensorBoard shows goes up."""

    stage = ("Training", "Training image download completed. Training in progress.")
    folders = (
        *("code", "model", "output/data", "output/intermediate"),
        *("input/data", "input/config"),
    )

    def __init__(
        self,
        order: Order,
        layout: Layout,
        reader: S3Reader,
        folder: Path,
        check_stop: Callable[[], None],
    ) -> None:
        self._order = order
        self._layout = layout
        self._check_stop = check_stop
        self._artifacts = Artifacts(reader, order.output_uri, folder)
        self._checkpoints = (
            Checkpoints(reader, order.checkpoint_uri, order.checkpoint_path, layout)
            if order.checkpoint_uri
            else None
        )
        self._synced = [] if self._checkpoints is None else [self._checkpoints]
        self._places = [self._artifacts]
        shown = order.tensorboard
        if shown is not None:
            title = "The files of TensorBoard"
            self._synced.append(Checkpoints(reader, shown.uri, shown.path, layout, title))
            self._places.append(
                Artifacts(reader, shown.uri, folder, f"S3OutputPath of {shown.name}")
            )

    def check(self) -> None:
        for place in self._places:
            place.check()

    def make(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.restore(lambda _: self._check_stop())
        if self._order.tensorboard is not None:
            path = self._layout.outside(self._order.tensorboard.path)
            path.mkdir(parents=True, exist_ok=True)

    def configure(self) -> None:
        self._layout.write_config(self._order)

    def variables(self) -> Mapping[str, str]:
        order = self._order
        return {
            **toolkit.variables(order, toolkit.hardware_of(order.confinement.gpus)),
            "TRAINING_JOB_NAME": order.job,
            "TRAINING_JOB_ARN": order.arn,
        }

    def started(self) -> None:
        for folder in self._synced:
            folder.start()

    def ended(self, reporter: Reporter) -> None:
        in_turn(folder.finish for folder in self._synced)

    def failure(self) -> str:
        return self._layout.failure()

    def rescue(self) -> None:
        root = self._layout.root
        if self._order.is_first and not is_empty(root, "output/data"):
            compress = self._order.compress
            self._artifacts.upload(root, "output/data", "output", compress=compress)

    def upload(self, reporter: Reporter, *, stopped: bool) -> None:
        reporter.enter("Uploading", "Uploading generated training model")
        root = self._layout.root
        # An archive without anything would be named as the model, and could not be served.
        if self._order.is_first and not (stopped and is_empty(root, "model")):
            compress = self._order.compress
            where = self._artifacts.upload(root, "model", "model", compress=compress)
            reporter.change(artifacts=where)
        self.rescue()
        _complete(self._artifacts, stopped)


class ProcessingContract(Contract):
    """Each output's folder becomes objects, at the end or all the time."""

    stage = ("Processing", "Processing in progress")
    folders = ("config", "output", "processing")

    def __init__(
        self,
        order: Order,
        processing: Processing,
        layout: Layout,
        reader: S3Reader,
        folder: Path,
    ) -> None:
        self._order = order
        self._processing = processing
        self._layout = layout
        self._outputs = [
            (output, Artifacts(reader, output.uri, folder, f"S3Uri of output {output.name!r}"))
            for output in processing.outputs
        ]
        self._synced = [
            Checkpoints(reader, output.uri, output.path, layout, f"Output {output.name!r}")
            for output in processing.outputs
            if output.continuous
        ]

    def check(self) -> None:
        for _, artifacts in self._outputs:
            artifacts.check()

    def make(self) -> None:
        for output in self._processing.outputs:
            self._layout.outside(output.path).mkdir(parents=True, exist_ok=True)

    def configure(self) -> None:
        self._layout.write_processing_config(self._order, self._processing)

    def variables(self) -> Mapping[str, str]:
        return {"PROCESSING_JOB_NAME": self._order.job, "PROCESSING_JOB_ARN": self._order.arn}

    def started(self) -> None:
        for output in self._synced:
            output.start()

    def ended(self, reporter: Reporter) -> None:
        said = self._layout.said("message", _MESSAGE_BYTES)
        if said:
            reporter.change(exit_message=said)
        in_turn(output.finish for output in self._synced)

    def failure(self) -> str:
        """A processing script says what it has to say in its exit message."""
        return ""

    def rescue(self) -> None:
        """What a script that failed left is not the result that was asked for."""

    def upload(self, reporter: Reporter, *, stopped: bool) -> None:
        reporter.enter("Uploading", "Uploading the outputs")
        in_turn(
            partial(self._upload, *each, stopped)
            for each in self._outputs
            if not each[0].continuous
        )

    def _upload(self, output: OutputFolder, artifacts: Artifacts, stopped: bool) -> None:
        below = output.path.removeprefix(INSIDE).strip("/")
        artifacts.upload_files(self._layout.root, below)
        _complete(artifacts, stopped)


def _complete(artifacts: Artifacts, stopped: bool) -> None:
    """Raises JobFailed for single files that could not be stored; of a job that was stopped the log
    says it."""
    try:
        artifacts.complete()
    except JobFailed as error:
        if not stopped:
            raise
        say(f"[{error.message}]")


def contract_of(
    order: Order,
    layout: Layout,
    reader: S3Reader,
    folder: Path,
    check_stop: Callable[[], None],
) -> Contract:
    """By the order's kind; ``folder`` is the runner's own."""
    if order.processing is not None:
        return ProcessingContract(order, order.processing, layout, reader, folder)
    return TrainingContract(order, layout, reader, folder, check_stop)


def in_turn(steps: Iterable[Callable[[], None]]) -> None:
    """All of them, whichever fails; then raises the first JobFailed."""
    failed: JobFailed | None = None
    for step in steps:
        try:
            step()
        except JobFailed as error:
            failed = failed or error
    if failed is not None:
        raise failed
