"""``hf://org/name[@revision]``: a model repository of the Hugging Face hub, or of a mirror of it.

Endpoint and token come from HF_ENDPOINT and HF_TOKEN. The revision is resolved to a commit first
and every file is read at that commit. A download that broke off goes on where it stopped, also
in a later process: partial files are kept in the cache, by commit.
"""

from __future__ import annotations

import errno
import fcntl
import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
)

from ridgeline_zoo.errors import (
    BadSource,
    GatedModel,
    HashMismatch,
    SourceNotFound,
    SourceUnavailable,
)
from ridgeline_zoo.sources.base import FetchRequest, Source
from ridgeline_zoo.sources.selection import select_files

_HUB = "https://huggingface.co"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class _Repository:
    name: str
    revision: str
    endpoint: str
    token: str | None
    eula: str


@dataclass(frozen=True)
class _File:
    size: int
    sha256: str | None


class HubSource(Source):
    """Weights of a hub repository."""

    def fetch(self, request: FetchRequest) -> None:
        repository = _repository(request)
        disable_progress_bars()
        with _alone(request.cache_dir, repository):
            names = _download_all(repository, request)
            for name, (part, stated) in names.items():
                try:
                    actual = request.hashes.check(name, part)
                    if stated is not None and actual != stated:
                        raise HashMismatch(
                            name, expected=stated, actual=actual, recorded_in=repository.endpoint
                        )
                except HashMismatch:
                    # A file that is wrong must not be taken for a good start next time.
                    part.unlink()
                    raise
            for name, (part, _) in names.items():
                target = request.into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(part, target)
            shutil.rmtree(_cache(request.cache_dir, repository), ignore_errors=True)


def _download_all(
    repository: _Repository, request: FetchRequest
) -> dict[str, tuple[Path, str | None]]:
    """Every wanted file, as where it lies and the sha256 the hub states for it, if it does."""
    with _hub_errors_named(repository):
        commit, files = _list(repository)
        names = select_files(files, f"hf://{repository.name}")
        total = sum(files[name].size for name in names)
        parts: dict[str, tuple[Path, str | None]] = {}
        done = 0
        for name in names:
            part = _part(request.cache_dir, repository, commit, name)

            def moved(bytes_so_far: int, before: int = done) -> None:
                request.progress("download", before + bytes_so_far, total)

            _download(repository, commit, name, files[name].size, part, moved)
            done += files[name].size
            request.progress("download", done, total)
            parts[name] = (part, files[name].sha256)
        return parts


def _repository(request: FetchRequest) -> _Repository:
    name, _, revision = request.location.partition("@")
    environment = request.environment
    return _Repository(
        name=name,
        revision=revision or request.revision,
        endpoint=(environment.get("HF_ENDPOINT") or _HUB).rstrip("/"),
        token=environment.get("HF_TOKEN") or None,
        eula=request.eula or f"{_HUB}/{name}",
    )


def _list(repository: _Repository) -> tuple[str, Mapping[str, _File]]:
    """The commit of the revision, and the files in it."""
    api = HfApi(endpoint=repository.endpoint, token=repository.token)
    try:
        info = api.model_info(repository.name, revision=repository.revision, files_metadata=True)
    except (KeyError, TypeError, ValueError) as error:
        # How the client shows an answer it cannot read; its own errors have classes of their own.
        if isinstance(error, (HFValidationError, TransportError)):
            raise
        raise SourceUnavailable(
            f"{repository.endpoint} does not answer like a hub: {type(error).__name__}: {error}",
            hint="Check HF_ENDPOINT.",
        ) from error
    files = {
        file.rfilename: _File(file.size, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or []
        if file.size is not None
    }
    if info.sha is None:
        raise SourceUnavailable(f"{repository.endpoint} names no commit for {repository.name}")
    return info.sha, files


@contextmanager
def _alone(cache_dir: Path, repository: _Repository) -> Iterator[None]:
    """One process at a time writes a repository's partial files; others wait."""
    folder = _cache(cache_dir, repository)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(
    repository: _Repository,
    commit: str,
    name: str,
    size: int,
    part: Path,
    moved: Callable[[int], None],
) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    with _Counted(part, moved) as out:
        have = out.seek(0, io.SEEK_END)
        if have > size:
            have = out.seek(0)
            out.truncate()
        if have == size:
            return
        http_get(
            hf_hub_url(repository.name, name, revision=commit, endpoint=repository.endpoint),
            out,
            resume_size=have,
            headers=build_hf_headers(token=repository.token),
            expected_size=size,
            displayed_filename=name,
        )


class _Counted(io.FileIO):
    """A file that tells its length as it grows."""

    def __init__(self, path: Path, moved: Callable[[int], None]) -> None:
        super().__init__(path, "r+b")
        self._moved = moved

    def write(self, data: bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        written = 0
        # FileIO may take less than it is given.
        while written < len(view):
            written += super().write(view[written:])
        self._moved(self.tell())
        return written


@contextmanager
def _hub_errors_named(repository: _Repository) -> Iterator[None]:
    """The hub's errors as ours, each with what to do."""
    name = repository.name
    try:
        yield
    except GatedRepoError as error:
        raise _gated(repository) from error
    except RevisionNotFoundError as error:
        raise SourceNotFound(
            f"{name} has no revision {repository.revision!r} at {repository.endpoint}",
            hint=f"Look at {repository.endpoint}/{name}/commits for the ones there are.",
        ) from error
    except RemoteEntryNotFoundError as error:
        raise SourceNotFound(f"a file of {name} is gone from the hub: {error}") from error
    except RepositoryNotFoundError as error:
        raise SourceNotFound(
            f"there is no repository {name} at {repository.endpoint}, or it is private",
            hint="Check the name; for a private repository set HF_TOKEN.",
        ) from error
    except HFValidationError as error:
        raise BadSource(f"hf://{name} is no repository name: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise _gated(repository) from error
        raise SourceUnavailable(
            f"{repository.endpoint} answered {status} for {name}",
            hint="Try again later; what was downloaded so far is kept.",
        ) from error
    except (TransportError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise SourceUnavailable(
            f"{repository.endpoint} could not be reached for {name}: {error}",
            hint=(
                "Check the network and HF_ENDPOINT, then try again: what was downloaded so far "
                "is kept."
            ),
        ) from error


def _gated(repository: _Repository) -> GatedModel:
    if repository.token is None:
        problem = "asks for its licence to be accepted, and no token is set"
    else:
        problem = "refuses the token in HF_TOKEN: its account has not accepted the licence"
    return GatedModel(
        f"{repository.name} {problem}",
        hint=(
            f"Accept the licence at {repository.eula}, make a read token at "
            f"{_HUB}/settings/tokens, and set HF_TOKEN to it."
        ),
    )


def _cache(cache_dir: Path, repository: _Repository) -> Path:
    return cache_dir / "hub" / repository.name.replace("/", "--")


def _part(cache_dir: Path, repository: _Repository, commit: str, name: str) -> Path:
    return _cache(cache_dir, repository) / commit / f"{name}.part"
