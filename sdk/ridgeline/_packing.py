"""Archives with the user's code in them, as SageMaker's hosting and training contracts want them.

``code/`` inside model.tar.gz holds the entry point, the rest of its source folder and its
dependencies. Everything else of the old archive stays; a ``code/`` that was there is replaced.
Archives are copied member by member and never unpacked, so nothing in them can reach the disk.
A link of a folder is packed as what it leads to, since that lies elsewhere on the other side.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ridgeline.errors import InvalidInput, NotFound

_SKIPPED = frozenset({"__pycache__", ".git", ".venv", ".ipynb_checkpoints"})


def pack_model(
    out: IO[bytes],
    *,
    entry_point: str | None,
    source_dir: str | os.PathLike[str] | None,
    dependencies: Sequence[str | os.PathLike[str]] = (),
    old: IO[bytes] | None = None,
) -> str | None:
    """Write model.tar.gz to ``out``; returns the name of the entry point inside ``code/``.

    Raises NotFound if the entry point or the folder is not there, InvalidInput if ``old`` is no
    tar archive.
    """
    files, program = _code_files(entry_point, source_dir, dependencies)
    with _new_archive(out) as new:
        if old is not None:
            _copy(old, new)
        for name, path in files:
            new.add(path, arcname=f"code/{name}", recursive=False)
    return program


def pack_source(
    out: IO[bytes],
    *,
    entry_point: str | None,
    source_dir: str | os.PathLike[str] | None,
    dependencies: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Write sourcedir.tar.gz to ``out``: a training script with what lies around it.

    Raises NotFound if the script or the folder is not there.
    """
    files, _ = _code_files(entry_point, source_dir, dependencies)
    with _new_archive(out) as new:
        for name, path in files:
            new.add(path, arcname=name, recursive=False)


def pack_directory(out: IO[bytes], directory: Path) -> None:
    """Write the content of ``directory`` as model.tar.gz, without hidden files.

    Raises InvalidInput as ``files_below``.
    """
    with _new_archive(out) as new:
        for path in files_below(directory, hidden=False):
            new.add(path, arcname=path.relative_to(directory).as_posix(), recursive=False)


def _code_files(
    entry_point: str | None,
    source_dir: str | os.PathLike[str] | None,
    dependencies: Sequence[str | os.PathLike[str]],
) -> tuple[list[tuple[str, Path]], str | None]:
    files: list[tuple[str, Path]] = []
    program = None
    if source_dir is not None:
        root = Path(source_dir)
        if not root.is_dir():
            raise NotFound(f"source_dir {str(root)!r} is not a folder.")
        if entry_point is not None and not (root / entry_point).is_file():
            raise NotFound(
                f"Entry point {entry_point!r} is not in source_dir {str(root)!r}.",
                hint="entry_point is relative to source_dir.",
            )
        program = entry_point
        files.extend((path.relative_to(root).as_posix(), path) for path in files_below(root))
    elif entry_point is not None:
        path = Path(entry_point)
        if not path.is_file():
            raise NotFound(f"Entry point {entry_point!r} does not exist.")
        program = path.name
        files.append((path.name, path))
    for dependency in dependencies:
        path = Path(dependency)
        if not path.exists():
            raise NotFound(f"Dependency {str(path)!r} does not exist.")
        if path.is_dir():
            inside = files_below(path)
            files.extend((f"{path.name}/{p.relative_to(path).as_posix()}", p) for p in inside)
        else:
            files.append((path.name, path))
    return files, program


def files_below(root: Path, *, hidden: bool = True) -> list[Path]:
    """All files of a folder but those of tools that work beside it, in a fixed order; without
    ``hidden``, none whose name or folder begins with a dot.

    Links are followed, a loop of them once. Raises InvalidInput for what is no file: a link that
    leads nowhere, a pipe.
    """
    return list(_walk(root, hidden, frozenset()))


def _walk(folder: Path, hidden: bool, above: frozenset[Path]) -> Iterator[Path]:
    above |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name in _SKIPPED or (not hidden and path.name.startswith(".")):
            continue
        if path.is_dir():
            if path.resolve() not in above:
                yield from _walk(path, hidden, above)
        elif path.is_file():
            yield path
        else:
            what = "is a link that leads nowhere" if path.is_symlink() else "is not a file"
            raise InvalidInput(f"{path} {what}.", hint="Remove it, or put a file in its place.")


def _new_archive(out: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=out, mode="w:gz", compresslevel=1, dereference=True)


def _copy(old: IO[bytes], new: tarfile.TarFile) -> None:
    try:
        with tarfile.open(fileobj=old, mode="r:*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name == "code" or name.startswith("code/") or name in ("", "."):
                    continue
                new.addfile(member, archive.extractfile(member) if member.isfile() else None)
    except tarfile.TarError as error:
        raise InvalidInput(
            f"model_data is no tar archive: {error}", hint="SageMaker wants a model.tar.gz."
        ) from None
