"""Fixtures shared by the tests that start a real service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ridgeline_testing import Service, running_service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that do not kill it."""
    with running_service(tmp_path_factory.mktemp("service") / "data") as running:
        yield running
