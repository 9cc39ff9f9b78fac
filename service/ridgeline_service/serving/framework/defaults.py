"""Defaults of the PyTorch toolkit, for the functions that a user's module leaves out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ridgeline_service.serving.framework import formats
from ridgeline_service.serving.framework.errors import BadRequest, ContractError


class Defaults:
    """model_fn, input_fn, predict_fn and output_fn as AWS's PyTorch containers have them."""

    def __init__(self, default_accept: str, lacking: str = "a model_fn") -> None:
        """``lacking`` is what the model would need where these defaults do not fit it."""
        self._default_accept = default_accept
        self._lacking = lacking

    def model_fn(self, model_dir: str) -> Any:
        """Load the one TorchScript file of the model. Pickled modules are not loaded.

        Raises ContractError where there is not exactly one .pt or .pth file, or it is something
        else.
        """
        found = sorted(path for path in Path(model_dir).glob("*") if path.suffix in (".pt", ".pth"))
        named = [path for path in found if path.name == "model.pt"]
        if len(named or found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise ContractError(
                f"The model has neither {self._lacking} nor exactly one TorchScript file (.pt or "
                f".pth) at {model_dir}; found: {names}. Add a code/inference.py with a model_fn."
            )
        path = (named or found)[0]
        torch: Any = importlib.import_module("torch")
        try:
            return torch.jit.load(str(path), map_location=self._device(torch)).eval()
        except RuntimeError as error:
            raise ContractError(
                f"{path.name} is not a TorchScript file; add a model_fn that loads it ({error})."
            ) from error

    def input_fn(self, body: bytes | str, content_type: str) -> Any:
        """A tensor of JSON, CSV (float32) or NPY (the array's own type)."""
        torch: Any = importlib.import_module("torch")
        value = formats.decode(body, content_type)
        try:
            if formats.media_type(content_type) == formats.NPY:
                tensor = torch.from_numpy(value)
            else:
                tensor = torch.tensor(value, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise BadRequest(
                f"The body cannot become a tensor ({error}). Send numbers, or write an input_fn."
            ) from None
        return tensor.to(self._device(torch))

    def predict_fn(self, data: Any, model: Any) -> Any:
        """``model(data)`` in evaluation mode, without gradients."""
        torch: Any = importlib.import_module("torch")
        if hasattr(model, "eval"):
            model.eval()
        with torch.no_grad():
            return model(data)

    def output_fn(self, prediction: Any, accept: str) -> Any:
        """The prediction as JSON, CSV, NPY or text, whichever Accept names first."""
        kind = formats.choose(accept, self._default_accept)
        return formats.encode(prediction, kind), kind

    @staticmethod
    def _device(torch: Any) -> Any:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
