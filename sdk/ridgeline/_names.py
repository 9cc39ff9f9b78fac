"""Names for things that nobody named."""

from __future__ import annotations

import re
import time

from ridgeline._clock import Clock
from ridgeline.errors import InvalidInput

_LIMIT = 63
_ALLOWED = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_STAMPED = re.compile(r"(.+)-\d{8}-\d{6}-\d{3}")
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9]+")


def unique_name(base: str, clock: Clock) -> str:
    """``base`` and the time, to the millisecond, as a name that SageMaker accepts."""
    now = clock.wall()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{int(now * 1000) % 1000:03d}"
    return f"{clean_name(base, _LIMIT - len(stamp) - 1)}-{stamp}"


def unstamped(name: str) -> str | None:
    """The base of a name that ``unique_name`` made; None for any other."""
    found = _STAMPED.fullmatch(name)
    return found and found.group(1)


def clean_name(base: str, limit: int = _LIMIT) -> str:
    """``base`` with only letters, digits and single hyphens, cut to ``limit``."""
    return _FORBIDDEN.sub("-", base).strip("-")[:limit].strip("-") or "model"


def image_name(image_uri: str) -> str:
    """The repository of an image, without registry, tag and digest."""
    return image_uri.rpartition("/")[2].partition("@")[0].partition(":")[0]


def is_name(name: str) -> bool:
    """Whether an endpoint or a job may have it."""
    return len(name) <= _LIMIT and _ALLOWED.fullmatch(name) is not None


def check_name(name: str, given_as: str, what: str = "an endpoint") -> str:
    """``name`` if an endpoint or a job may have it; else InvalidInput, which says where it was
    given."""
    if is_name(name):
        return name
    raise InvalidInput(
        f"{given_as}: {name!r} cannot be the name of {what}.",
        hint=f"Allowed: 1 to {_LIMIT} letters, digits and hyphens, a hyphen neither first nor "
        f"last; like {clean_name(name)!r}.",
    )
