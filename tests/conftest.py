"""Fixtures shared by tests of several rooms: a running service, an empty PostgreSQL database."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from ridgeline_testing import Service, running_service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that do not kill it."""
    with running_service(tmp_path_factory.mktemp("service") / "data") as running:
        yield running


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a database made for one test, on the server that RIDGELINE_TEST_POSTGRES names."""
    server = os.environ.get("RIDGELINE_TEST_POSTGRES")
    if not server:
        pytest.skip("RIDGELINE_TEST_POSTGRES is not set")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield server.rpartition("/")[0] + "/" + name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
