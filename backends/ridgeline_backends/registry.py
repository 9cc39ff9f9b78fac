"""Backends by name, found through entry points and imported only when asked for.

A backend that cannot be imported does not hide the others: `probe_all` reports the failure with its
reason, which is what `ridgeline doctor` prints.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from ridgeline_backends.base import Backend, DeviceReport
from ridgeline_backends.errors import BackendUnusable, UnknownBackend

GROUP = "ridgeline.backends"


def backend_names() -> list[str]:
    """The names that are registered, without importing anything behind them."""
    return sorted(_points())


def get_backend(name: str) -> Backend:
    """The backend of that name. Raises `UnknownBackend` ("did you mean") or `BackendUnusable`."""
    points = _points()
    if name not in points:
        close = get_close_matches(name.lower(), points, n=1, cutoff=0.5)
        raise UnknownBackend(name, sorted(points), close[0] if close else None)
    return _load(points[name])


def all_backends() -> dict[str, Backend]:
    """Every backend that can be imported. `probe_all` tells about the others."""
    found: dict[str, Backend] = {}
    for name, point in sorted(_points().items()):
        try:
            found[name] = _load(point)
        except BackendUnusable:
            continue
    return found


def probe_all() -> list[DeviceReport]:
    """One report per registered backend, the unusable ones with their reason. Never raises."""
    reports: list[DeviceReport] = []
    for name, point in sorted(_points().items()):
        try:
            reports.append(_load(point).probe())
        except BackendUnusable as error:
            reports.append(DeviceReport(backend=name, usable=False, reason=str(error)))
        except Exception as error:  # noqa: BLE001  a third party's probe may break its promise
            reason = f"its probe failed: {type(error).__name__}: {error}"
            reports.append(DeviceReport(backend=name, usable=False, reason=reason))
    return reports


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> Backend:
    try:
        backend = point.load()()
    except ImportError as error:
        hint = f"pip install 'ridgeline[{point.name}]'" if _is_ours(point) else ""
        raise BackendUnusable(point.name, str(error), hint=hint) from error
    except Exception as error:  # a third party's module may raise anything when it is imported
        raise BackendUnusable(point.name, f"{type(error).__name__}: {error}") from error
    if not isinstance(backend, Backend):
        raise BackendUnusable(point.name, f"{point.value} is not a Backend")
    return backend


def _is_ours(point: EntryPoint) -> bool:
    return point.value.startswith("ridgeline_backends.")
