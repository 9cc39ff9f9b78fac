"""``ridgeline neuron profile``: which models and endpoints are meant by a name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput, NotFound, NotRunning, RidgelineError
from ridgeline_backends.neuron.commands import app, profile
from ridgeline_backends.neuron.commands.models import config_of


def answering(monkeypatch: pytest.MonkeyPatch, error: RidgelineError) -> None:
    """Have a service that answers every question for a simulated endpoint so."""

    def refuse(*path: str) -> Any:
        raise error

    session = SimpleNamespace(api=SimpleNamespace(get=refuse))
    monkeypatch.setattr(profile, "open_session", lambda data_dir: session)


def test_what_keeps_an_endpoint_from_being_profiled_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = InvalidInput("assistant stands for no simulated device.", hint="Deploy on inf2.")
    answering(monkeypatch, error)
    assert CliRunner().invoke(app, ["profile", "assistant"]).exception is error


def test_that_no_service_could_be_asked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, NotRunning("No service runs."))
    done = CliRunner().invoke(app, ["profile", "assistant"])
    assert isinstance(done.exception, NotFound)
    assert "whether assistant is an endpoint is not known: No service runs." in done.stderr


def test_a_name_that_is_nothing_is_looked_up_as_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, NotFound("Could not find endpoint."))
    failed = CliRunner().invoke(app, ["profile", "nobodys-model"]).exception
    assert isinstance(failed, NotFound)
    assert "sizes" in failed.message


def test_a_public_model_needs_no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, NotRunning("No service runs."))
    trace = tmp_path / "trace.json"
    done = CliRunner().invoke(app, ["profile", "smollm2-135m", "--seq", "128", "-o", str(trace)])
    assert done.exit_code == 0, done.exception
    assert trace.stat().st_size


def test_a_config_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.json"):
        config_of(str(tmp_path / "absent.json"))
