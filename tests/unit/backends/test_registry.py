"""Backends are found by name, lazily, and one that is broken does not hide the others."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from ridgeline_backends import registry
from ridgeline_backends.base import Backend
from ridgeline_backends.errors import BackendUnusable, UnknownBackend


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "cpu": "ridgeline_backends.cpu.backend:CpuBackend",
        "absent": "no_such_module_anywhere:Backend",
        "wrong": "pathlib:Path",
    }
    entries = {name: EntryPoint(name, value, registry.GROUP) for name, value in points.items()}
    monkeypatch.setattr(registry, "_points", lambda: entries)


def test_the_cpu_backend_is_installed_and_usable():
    assert "cpu" in registry.backend_names()
    backend = registry.get_backend("cpu")
    assert isinstance(backend, Backend)
    report = backend.probe()
    assert report.usable
    assert report.memory_bytes > 0
    assert report.threads > 0


def test_a_typo_is_answered_with_a_suggestion():
    with pytest.raises(UnknownBackend, match="Did you mean 'cpu'") as caught:
        registry.get_backend("cpuu")
    assert caught.value.http_status == 400


@pytest.mark.usefixtures("broken")
def test_broken_backends_are_reported_with_their_reason():
    reports = {report.backend: report for report in registry.probe_all()}
    assert reports["cpu"].usable
    assert "no_such_module_anywhere" in reports["absent"].reason
    assert "not a Backend" in reports["wrong"].reason
    assert list(registry.all_backends()) == ["cpu"]
    with pytest.raises(BackendUnusable, match="no_such_module"):
        registry.get_backend("absent")


def test_a_probe_that_raises_is_a_report(monkeypatch: pytest.MonkeyPatch):
    def explode(self: object) -> None:
        raise OSError("driver too old")

    monkeypatch.setattr("ridgeline_backends.cpu.backend.CpuBackend.probe", explode)
    reports = {report.backend: report for report in registry.probe_all()}
    assert not reports["cpu"].usable
    assert "driver too old" in reports["cpu"].reason


def test_the_seam_and_the_scheduler_load_no_torch():
    code = (
        "import sys, ridgeline_backends.registry, ridgeline_backends.engine, "
        "ridgeline_backends.testing, ridgeline_backends.models.config; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
