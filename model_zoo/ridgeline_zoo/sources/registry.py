"""Schemes and their sources. Imports a source only when its scheme is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ridgeline.errors import did_you_mean
from ridgeline_zoo.errors import BadSource
from ridgeline_zoo.sources.base import Source

# Each import is inner so that reading a card costs neither huggingface_hub nor tokenizers.


def _hf() -> Source:
    from ridgeline_zoo.sources.hf import HubSource

    return HubSource()


def _s3() -> Source:
    from ridgeline_zoo.sources.s3 import S3Source

    return S3Source()


def _file() -> Source:
    from ridgeline_zoo.sources.file import FileSource

    return FileSource()


def _wheel() -> Source:
    from ridgeline_zoo.sources.wheel import WheelSource

    return WheelSource()


def _seeded() -> Source:
    from ridgeline_zoo.sources.seeded import SeededSource

    return SeededSource()


SCHEMES: Mapping[str, Callable[[], Source]] = {
    "hf": _hf,
    "s3": _s3,
    "file": _file,
    "wheel": _wheel,
    "seeded": _seeded,
}


def get_source(reference: str) -> tuple[Source, str]:
    """The source for ``scheme://location`` and the location. Raises BadSource."""
    scheme, separator, location = reference.partition("://")
    if not separator or not location:
        raise BadSource(
            f"the source {reference!r} is not of the form scheme://location",
            hint="Examples: hf://org/name, s3://bucket/prefix/, file:///folder.",
        )
    make = SCHEMES.get(scheme)
    if make is None:
        raise BadSource(
            f"the source {reference!r} has the unknown scheme {scheme!r}",
            hint=did_you_mean(scheme, SCHEMES),
        )
    return make(), location
