"""Everything before the script starts: the runtime's environment, the data, the code, its packages.

Progress goes to standard output, which is the job's log.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ridgeline.errors import RidgelineError
from ridgeline_service.endings import sentences
from ridgeline_service.objects.reading import S3Failed, S3Reader, object_in
from ridgeline_service.placement.disk import NoRoom, full_disk_named, room_kept
from ridgeline_service.runtime import pip
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.images import Runtime, runtime_named
from ridgeline_service.training import toolkit
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.channels import stage
from ridgeline_service.training.layout import Layout
from ridgeline_service.training.lazy import LazyChannels
from ridgeline_service.training.order import Order
from ridgeline_service.training.sandboxing import Packages

_REQUIREMENTS = "requirements.txt"
_CODE = "sourcedir.tar.gz"
_TRAIN = "train"
_FAST = "fast"


@dataclass(frozen=True)
class Prepared:
    """The command to run inside, with the packages it sees and the settings of its own pip."""

    command: tuple[str, ...]
    packages: Packages
    pip: dict[str, str]


class Preparation:
    """``check`` is called often and raises what ends the job."""

    def __init__(
        self,
        order: Order,
        layout: Layout,
        reader: S3Reader,
        room: Path,
        check: Callable[[], None],
    ) -> None:
        self._order = order
        self._layout = layout
        self._reader = reader
        self._room = room
        self._check = check
        self._environments = Environments(Path(order.cache))
        self._runtime: Runtime = runtime_named(order.runtime)

    def environment(self) -> Packages:
        """The runtime's interpreter; the first job of a runtime on this machine installs it."""
        with _install_failures():
            found = self._environments.ensure(self._runtime, self._progress)
        return Packages(python=found.python, read_only=found.site_dirs)

    def data(self) -> int:
        """Download the channels, those left out whose files come when they are opened; returns the
        bytes."""
        order, total = self._order, 0
        lazy = LazyChannels(self._reader, self._room / _FAST, say)
        for channel in order.channels:
            where = self._layout.outside(channel.inside)
            if lazy.mount(channel, where, host=order.index, hosts=len(order.hosts)):
                continue
            total += stage(
                channel,
                self._reader,
                where,
                host=order.index,
                hosts=len(order.hosts),
                took=lambda _: self._check(),
            )
        return total

    def command(self, packages: Packages) -> Prepared:
        """What runs, once code and packages are there. Raises JobFailed."""
        order = self._order
        settings = self._pip_settings(packages)
        packages = replace(
            packages,
            read_only=(*packages.read_only, *pip.named_paths(list(settings.values()))),
        )
        if order.entrypoint:
            return Prepared((*order.entrypoint, *order.arguments), packages, settings)
        uri = toolkit.submitted(order)
        if uri:
            self._unpack(uri)
        packages = self._with_requirements(packages)
        program = toolkit.program_of(order)
        if program:
            hardware = toolkit.hardware_of(order.confinement.gpus)
            command = toolkit.script_command(order, program, self._layout.code, hardware)
            return Prepared(tuple(command), packages, settings)
        if not (self._layout.code / _TRAIN).is_file():
            raise JobFailed(
                Cause.CODE_INVALID,
                f"The job names no program: the {self._runtime.title.lower()} need the "
                "hyperparameters sagemaker_program and sagemaker_submit_directory, a "
                "ContainerEntrypoint, or an executable called train in the submitted code.",
            )
        return Prepared((_TRAIN, *order.arguments), packages, settings)

    def _unpack(self, source: str) -> None:
        # Inner: a job without submitted code starts sooner without it.
        from ridgeline_zoo.archive import extract_archive

        what, packed, code = f"The submitted code {source}", self._room / _CODE, self._layout.code
        try:
            with full_disk_named(what):
                if source.startswith("s3://"):
                    bucket, key = object_in(source)
                    self._reader.download(bucket, key, packed, self._took(self._room, what))
                    extract_archive(packed, code, took=self._took(code, what))
                else:
                    extract_archive(self._in_channel(source), code, took=self._took(code, what))
        except NoRoom as error:
            raise JobFailed(Cause.DISK_FULL, error.message) from error
        except S3Failed as error:
            cause = Cause.DATA_UNREACHABLE if error.retry else Cause.CODE_INVALID
            raise JobFailed(cause, f"The submitted code: {error.message}") from error
        except RidgelineError as error:
            said = sentences(error.message, error.hint).replace(packed.name, source)
            raise JobFailed(Cause.CODE_INVALID, f"The submitted code: {said}") from error
        finally:
            packed.unlink(missing_ok=True)

    def _took(self, into: Path, what: str) -> Callable[[int], None]:
        """For each piece of the code: does the job go on, and is there room?"""
        kept = room_kept(into, what)

        def took(size: int) -> None:
            self._check()
            kept(size)

        return took

    def _in_channel(self, source: str) -> Path:
        """The archive of the code where a channel brought it: nothing but this runner has written
        there yet."""
        found = self._layout.outside(posixpath.normpath(source))
        if not found.is_file():
            raise JobFailed(
                Cause.CODE_INVALID, f"The submitted code: there is no {source} in the channels."
            )
        return found

    def _with_requirements(self, packages: Packages) -> Packages:
        wanted = self._layout.code / _REQUIREMENTS
        if not wanted.is_file():
            return packages
        with _install_failures():
            overlay = self._environments.overlay(self._runtime, wanted.read_bytes(), self._progress)
        return replace(packages, overlays=(overlay,))

    def _pip_settings(self, packages: Packages) -> dict[str, str]:
        """This machine's pip settings, for what the job itself installs."""
        if not self._order.confinement.network:
            return {}
        return pip.job_settings(packages.python.parent.parent)

    def _progress(self, line: str) -> None:
        self._check()
        say(line)


def say(line: str) -> None:
    """A line into the job's log."""
    print(line, flush=True)  # noqa: T201


@contextmanager
def _install_failures() -> Iterator[None]:
    try:
        yield
    except NoRoom as error:
        raise JobFailed(Cause.DISK_FULL, error.message) from error
    except RidgelineError as error:
        log: tuple[str, ...] = getattr(error, "log_tail", ())
        message = sentences(error.message, error.hint)
        raise JobFailed(Cause.ENVIRONMENT_FAILED, message, log) from error
