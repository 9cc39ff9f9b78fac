"""What is said of an adapter that is not there."""

from __future__ import annotations

import pytest

from ridgeline_backends.engine.adapters import Adapters
from ridgeline_backends.errors import UnknownAdapter


def test_a_model_that_is_served_without_adapters_says_how_to_serve_it_with_them() -> None:
    with pytest.raises(UnknownAdapter) as caught:
        Adapters(None).acquire("zanz")
    assert caught.value.message == "No LoRA adapter 'zanz' is loaded."
    assert caught.value.hint is not None
    assert "LoRA adapters are off" in caught.value.hint
    assert "OPTION_ENABLE_LORA=true" in caught.value.hint


def test_others_are_named() -> None:
    assert UnknownAdapter("zanz", ["b", "a"]).hint == "Loaded: a, b."
    assert UnknownAdapter("zanz", []).hint == "Loaded: none."
