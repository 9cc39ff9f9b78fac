from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def clean_path() -> Iterator[None]:
    """A user's code changes the path and brings modules: the next test must not see them."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("sagemaker", "user_", "inference")):
            del sys.modules[name]
