"""``file:///path``: a folder of a model, one GGUF file, or an archive, on this machine.

Files are copied, never moved: they are the user's.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ridgeline_zoo.archive import extract_archive
from ridgeline_zoo.errors import BadSource, SourceNotFound
from ridgeline_zoo.sources.base import FetchRequest, Source
from ridgeline_zoo.sources.selection import refuse_pickle, select_files

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


class FileSource(Source):
    """Weights that lie on a disk of this machine."""

    def fetch(self, request: FetchRequest) -> None:
        path = Path(request.location)
        if not path.is_absolute():
            raise BadSource(
                f"file://{request.location} is not an absolute path",
                hint="The form is file:///folder, with three slashes.",
            )
        if path.is_dir():
            _copy(path, request, str(path))
        elif not path.is_file():
            raise SourceNotFound(f"there is nothing at {path}")
        elif path.name.endswith(_ARCHIVES):
            request.hashes.check(path.name, path)
            with tempfile.TemporaryDirectory(dir=request.into.parent, prefix=".") as scratch:
                extract_archive(path, Path(scratch))
                _copy(Path(scratch), request, str(path), hashed=False)
        else:
            refuse_pickle(path.name, str(path.parent))
            request.hashes.check(path.name, path)
            _copy_file(path, request.into / path.name)


def _copy(folder: Path, request: FetchRequest, origin: str, *, hashed: bool = True) -> None:
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    wanted = select_files(names, origin)
    total = sum((folder / name).stat().st_size for name in wanted)
    done = 0
    for name in wanted:
        target = request.into / name
        _copy_file(folder / name, target)
        if hashed:
            request.hashes.check(name, target)
        done += target.stat().st_size
        request.progress("download", done, total)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
