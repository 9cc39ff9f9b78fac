"""Defaults of the scikit-learn toolkit: rows of numbers in, ``model.predict``, its values out."""

from __future__ import annotations

import importlib
from typing import Any

from ridgeline_service.serving.framework import formats
from ridgeline_service.serving.framework.defaults import Defaults
from ridgeline_service.serving.framework.errors import BadRequest, ContractError


class SklearnDefaults(Defaults):
    """input_fn, predict_fn and output_fn as AWS's scikit-learn containers have them, which load no
    model by themselves."""

    def model_fn(self, model_dir: str) -> Any:
        """Raises ContractError."""
        raise ContractError(
            f"The model lacks {self._lacking}. Please provide a model_fn implementation, such as "
            "one that gives joblib.load of the model's file: scikit-learn's models are pickles, "
            "which are loaded by code of yours alone."
        )

    def input_fn(self, body: bytes | str, content_type: str) -> Any:
        """A table (rows by columns, float32) of JSON or CSV, or NPY's own array; one row may stand
        by itself."""
        numpy: Any = importlib.import_module("numpy")
        kind = formats.media_type(content_type)
        if kind == formats.CSV:
            text = body if isinstance(body, str) else body.decode()
            value: Any = [line.split(",") for line in text.split("\n") if line.strip()]
        else:
            value = formats.decode(body, content_type)
        try:
            found = value if kind == formats.NPY else numpy.asarray(value, dtype=numpy.float32)
        except (TypeError, ValueError) as error:
            raise BadRequest(
                f"The body is no table of numbers ({error}). Send numbers, or write an input_fn."
            ) from None
        return found.reshape(1, -1) if found.ndim == 1 else found

    def predict_fn(self, data: Any, model: Any) -> Any:
        return model.predict(data)
