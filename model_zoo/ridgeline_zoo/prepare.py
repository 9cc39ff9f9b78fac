"""``python -m ridgeline_zoo.prepare CARD --out DIR``: fetch, verify, convert, put in place.

A command of its own, so that a download neither blocks nor outlives the server that wants it.
Standard output is JSON lines: progress, then one ``result`` or one ``error``. The folder appears
whole or not at all; running the command again checks what is there and does nothing more.
Knows no object store to write to: whoever calls it uploads the folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import typer
from pydantic import TypeAdapter, ValidationError

from ridgeline.errors import InternalError, RidgelineError
from ridgeline_zoo.card import Card
from ridgeline_zoo.catalog import load_cards
from ridgeline_zoo.convert import build_model_dir
from ridgeline_zoo.errors import OutputTaken, OutputUnwritable
from ridgeline_zoo.hashes import HashBook, sha256_of
from ridgeline_zoo.progress import Progress, silent
from ridgeline_zoo.sources import FetchRequest, get_source
from ridgeline_zoo.sources.base import S3Client

RECORD = ".ridgeline-prepared.json"
# Raised when a conversion starts to give other files, so that folders made before are made again.
_FORMAT = 2
_TICK_S = 0.2
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class PreparedFile:
    """A file of the model folder, by its path inside it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Record:
    """What a prepared folder says about itself."""

    format: int
    id: str
    version: str
    source: str
    revision: str
    dtype: str
    files: tuple[PreparedFile, ...]


_RECORD = TypeAdapter(_Record)


@dataclass(frozen=True)
class Options:
    """Where things are kept and read from, beside the card and the folder."""

    cache_dir: Path
    pins_file: Path | None
    environment: Mapping[str, str]
    s3_client: Callable[[], S3Client] | None = None


def prepare(
    card: Card, out: Path, options: Options, progress: Progress = silent
) -> tuple[PreparedFile, ...]:
    """Make ``out`` the model folder of the card, and return its files.

    Returns at once (after checking every hash) if it is that already. One prepare at a time works
    on a folder; others wait and find it done. Raises the errors of ``ridgeline_zoo.errors``.
    """
    out = out.absolute()
    with _disk_errors_named(out), _alone(out):
        present = _already_prepared(card, out)
        if present is not None:
            size = sum(file.size for file in present)
            progress("prepare", size, size)
            return present
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=_scratch_prefix(out)) as scratch:
            model = _make(card, Path(scratch), options, progress)
            files = _list_files(model)
            _write_record(card, model, files)
            _replace(model, out, Path(scratch))
        return files


def _make(card: Card, scratch: Path, options: Options, progress: Progress) -> Path:
    fetched, model = scratch / "fetched", scratch / "model"
    fetched.mkdir()
    model.mkdir()
    source, location = get_source(card.source)
    key = f"{card.source}@{card.revision}"
    hashes = HashBook(card.sha256, pins_file=options.pins_file, key=key)
    needs_s3 = card.source.startswith("s3://") and options.s3_client is not None
    options.cache_dir.mkdir(parents=True, exist_ok=True)
    source.fetch(
        FetchRequest(
            location=location,
            revision=card.revision,
            into=fetched,
            cache_dir=options.cache_dir,
            hashes=hashes,
            config=card.config,
            eula=card.eula,
            environment=options.environment,
            progress=progress,
            s3_client=options.s3_client() if needs_s3 and options.s3_client else None,
        )
    )
    build_model_dir(card, fetched, model, progress)
    hashes.save()
    return model


def _already_prepared(card: Card, out: Path) -> tuple[PreparedFile, ...] | None:
    """The files, if the folder is whole and made from this card; None if it is to be made.

    Raises OutputTaken if something else lies there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        record = _RECORD.validate_json((out / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError) as error:
        raise OutputTaken(
            f"{out} is not empty, and was not made by this command",
            hint="Choose another --out, or remove the folder.",
        ) from error
    if record != _record(card, record.files):
        return None
    for file in record.files:
        path = out / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            return None
        if sha256_of(path) != file.sha256:
            return None
    return record.files


def _list_files(model: Path) -> tuple[PreparedFile, ...]:
    return tuple(
        PreparedFile(str(path.relative_to(model)), path.stat().st_size, sha256_of(path))
        for path in sorted(model.rglob("*"))
        if path.is_file()
    )


def _record(card: Card, files: tuple[PreparedFile, ...]) -> _Record:
    return _Record(_FORMAT, card.id, card.version, card.source, card.revision, card.dtype, files)


def _write_record(card: Card, model: Path, files: tuple[PreparedFile, ...]) -> None:
    (model / RECORD).write_bytes(_RECORD.dump_json(_record(card, files), indent=1))


def _replace(model: Path, out: Path, scratch: Path) -> None:
    """Put the new folder in place by renames; an outdated one of ours moves out of the way."""
    if out.exists():
        out.rename(scratch / "outdated")
    model.rename(out)


def _scratch_prefix(out: Path) -> str:
    return f".{out.name}.making-"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system drops if we are killed; clear what was left."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in out.parent.glob(f"{_scratch_prefix(out)}*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield


@contextmanager
def _disk_errors_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputUnwritable(
                f"no room left on the disk of {out.parent}",
                hint="Free some space, or set another data directory.",
            ) from error
        if error.errno in _UNWRITABLE:
            raise OutputUnwritable(f"{error.filename or out} cannot be written: {error}") from error
        raise


class _JsonLines:
    """Progress and outcome as JSON lines; progress at most every 0.2 s, and at its end."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._last = -_TICK_S
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = self._clock()
        if stage == self._stage and done < total and now - self._last < _TICK_S:
            return
        self._last, self._stage = now, stage
        self.write({"stage": stage, "done": done, "total": total})

    def write(self, value: Mapping[str, object]) -> None:
        print(json.dumps(value), file=self._stream, flush=True)


def run(
    card_id: str,
    out: Path,
    cards_dir: Sequence[Path],
    pins: Path | None,
    cache_dir: Path | None,
    *,
    environment: Mapping[str, str],
    stream: TextIO,
    clock: Callable[[], float],
) -> int:
    """The command without its arguments' parsing; returns the exit status."""
    lines = _JsonLines(stream, clock)
    try:
        card = load_cards(cards_dir).get(card_id)
        home = environment.get("RIDGELINE_HOME")
        base = Path(home) if home else Path.home() / ".ridgeline"
        options = Options(
            cache_dir=cache_dir or base / "cache" / "zoo",
            pins_file=pins,
            environment=environment,
            s3_client=_boto3_client,
        )
        files = prepare(card, out, options, lines)
    except RidgelineError as error:
        lines.write({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        return 1
    except Exception as error:  # noqa: BLE001 - the caller reads JSON: a bug must reach it as such
        bug = InternalError(f"{type(error).__name__}: {error}")
        lines.write({"error": {"code": bug.code, "message": bug.message, "hint": ""}})
        return 1
    lines.write({"result": {"files": [asdict(file) for file in files]}})
    return 0


def _boto3_client() -> S3Client:
    # Inner: only a card with an s3 source needs boto3, which is slow to load.
    import boto3

    client: S3Client = boto3.client("s3")
    return client


def main(
    card_id: str = typer.Argument(..., metavar="CARD_ID"),
    out: Path = typer.Option(..., help="The model folder to make."),
    cards_dir: list[Path] = typer.Option([], help="A further folder of cards (repeatable)."),
    pins: Path | None = typer.Option(None, help="File that records hashes at first download."),
    cache_dir: Path | None = typer.Option(None, help="Where downloads are kept."),
) -> None:
    """Fetch, verify and convert the model of a card into a folder."""
    status = run(
        card_id,
        out,
        cards_dir,
        pins,
        cache_dir,
        environment=os.environ,
        stream=sys.stdout,
        clock=time.monotonic,
    )
    raise typer.Exit(status)


if __name__ == "__main__":
    typer.run(main)
