"""A model of transformers with the weights of a directory, all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from ridgeline_backends.errors import InvalidModel, MismatchedTensor, MissingTensor


def load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The model, ready to run. Raises `MissingTensor`, `MismatchedTensor` and `InvalidModel`."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            # Whatever is not in the files it draws at random: that is asked for and refused below.
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # hundreds of model classes read what came from outside
        raise InvalidModel(f"transformers cannot load this model: {error}") from error
    model, info = loaded
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise MismatchedTensor(name, f"of shape {tuple(expected)}", f"of shape {tuple(found)}")
    # Without those that are tied to one that is there.
    if info["missing_keys"]:
        raise MissingTensor(*sorted(info["missing_keys"]), where=folder.name)
    return model.eval()
