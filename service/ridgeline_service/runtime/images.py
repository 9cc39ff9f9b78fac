"""What an image URI means here: repository and tag -> runtime, by the data file beside this module.

Knows names, kinds and requirements. Does not know how a runtime is installed (environments), nor
how it is started (sandbox, launcher), and never contacts a registry.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from ridgeline_service.errors import ValidationException

Kind = Literal["llm", "framework", "training"]


@dataclass(frozen=True)
class Runtime:
    """What an image runs: a model server of ours (``llm``), a user's ``inference.py``
    (``framework``), or jobs (``training``). ``requirements`` are pip lines of the runtime's own
    environment; an ``llm`` runtime has none, because it runs in the service's. Runtimes whose
    ``environment`` has one name and equal requirements share it. ``needs_opt_ml`` says that user
    code expects its files below /opt/ml, so that a namespace is needed to start it."""

    name: str
    kind: Kind
    title: str
    environment: str
    requirements: tuple[str, ...]
    needs_opt_ml: bool


@dataclass(frozen=True)
class ImageName:
    """An image URI in its parts, e.g. ``vllm`` and ``0.9`` of ``public.ecr.aws/dlc/vllm:0.9``."""

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, uri: str) -> ImageName:
        """Split ``[registry/]repository[:tag][@digest]``. A missing tag is ``latest``."""
        name = uri.partition("@")[0]
        head, slash, rest = name.partition("/")
        # As Docker decides it: the first component is a host if it looks like one.
        is_host = bool(slash) and ("." in head or ":" in head or head == "localhost")
        registry, path = (head, rest) if is_host else ("", name)
        repository, _, tag = path.partition(":")
        return cls(registry=registry, repository=repository, tag=tag or "latest")


class UnknownImage(ValidationException):
    """No runtime stands for this image. The hint lists the known repositories."""


class RefusedImage(ValidationException):
    """The image is known and cannot run here; the message says why."""


def resolve(image_uri: str) -> Runtime:
    """The runtime by which an endpoint serves an image, whatever account, region or registry its
    URI names.

    Raises UnknownImage (lists the known repositories) or RefusedImage (says why).
    """
    return _find(image_uri, _SERVES).runtime


def resolve_training(image_uri: str) -> Runtime:
    """The runtime by which a job runs an image. Raises as ``resolve`` does."""
    return _find(image_uri, _TRAINS).runtime


def flavour_of(image_uri: str) -> str:
    """How this image words requests and answers (``djl``, ``tgi``, ``vllm``), where its runtime
    stands for several kinds of image; else empty. Raises as ``resolve`` does."""
    return _find(image_uri, _SERVES).flavour


def runtimes() -> tuple[Runtime, ...]:
    """All runtimes, in the order of the data file."""
    return tuple(dict.fromkeys(entry.runtime for entry in _table().entries))


def runtime_named(name: str) -> Runtime:
    """The runtime called ``name``, as kept in a row. Raises UnknownImage."""
    for entry in _table().entries:
        if entry.runtime.name == name:
            return entry.runtime
    raise UnknownImage(f"No runtime is called {name!r}.")


def known_repositories(kinds: Collection[Kind] = ("llm", "framework")) -> tuple[str, ...]:
    """Repository patterns that resolve to these kinds, in the order of the data file."""
    return tuple(
        pattern
        for entry in _table().entries
        if entry.runtime.kind in kinds
        for pattern in entry.pattern.repositories
    )


_SERVES: tuple[Kind, ...] = ("llm", "framework")
_TRAINS: tuple[Kind, ...] = ("training",)


@dataclass(frozen=True)
class _Pattern:
    repositories: tuple[str, ...]
    tags: tuple[str, ...]

    def matches(self, image: ImageName) -> bool:
        names = (image.repository, image.repository.rpartition("/")[2])
        return any(
            fnmatchcase(name, pattern) for name in names for pattern in self.repositories
        ) and any(fnmatchcase(image.tag, pattern) for pattern in self.tags)


@dataclass(frozen=True)
class _Entry:
    """Images of one runtime and one flavour."""

    pattern: _Pattern
    runtime: Runtime
    flavour: str

    def matches(self, image: ImageName) -> bool:
        return self.pattern.matches(image)


@dataclass(frozen=True)
class _Refusal:
    pattern: _Pattern
    reason: str

    def matches(self, image: ImageName) -> bool:
        return self.pattern.matches(image)


@dataclass(frozen=True)
class _Table:
    entries: tuple[_Entry, ...]
    refused: tuple[_Refusal, ...]


def _find(image_uri: str, kinds: tuple[Kind, ...]) -> _Entry:
    image = ImageName.parse(image_uri)
    table = _table()
    hint = f"Known images: {', '.join(known_repositories(kinds))}."
    for refused in table.refused:
        if refused.matches(image):
            raise RefusedImage(f"Image {image_uri!r} cannot run here: {refused.reason}.", hint=hint)
    matching = [entry for entry in table.entries if entry.matches(image)]
    for entry in matching:
        if entry.runtime.kind in kinds:
            return entry
    if matching:
        reason = _WRONG_USE_SERVES if kinds == _SERVES else _WRONG_USE_TRAINS
        raise RefusedImage(f"Image {image_uri!r} cannot run here: {reason}.", hint=hint)
    raise UnknownImage(f"No runtime is known for image {image_uri!r}.", hint=hint)


_WRONG_USE_SERVES = (
    "it is a training image, and this endpoint needs the inference image of the framework"
)
_WRONG_USE_TRAINS = (
    "it is an inference image, and this job needs the training image of the framework"
)


@cache
def _table() -> _Table:
    text = files("ridgeline_service.runtime").joinpath("images.yaml").read_text()
    raw: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
    return _Table(
        entries=tuple(entry for item in raw["runtimes"] for entry in _entries(item)),
        refused=tuple(
            _Refusal(pattern=_pattern(item), reason=item["reason"]) for item in raw["refused"]
        ),
    )


def _entries(item: dict[str, Any]) -> list[_Entry]:
    runtime = Runtime(
        name=item["name"],
        kind=item["kind"],
        title=item["title"],
        environment=item.get("environment", item["name"]),
        requirements=tuple(item["requirements"]),
        needs_opt_ml=item["needs_opt_ml"],
    )
    flavours = item.get("flavours") or {"": item["repositories"]}
    return [
        _Entry(_Pattern(tuple(repositories), tuple(item["tags"])), runtime, flavour)
        for flavour, repositories in flavours.items()
    ]


def _pattern(item: dict[str, Any]) -> _Pattern:
    return _Pattern(repositories=tuple(item["repositories"]), tags=tuple(item["tags"]))
