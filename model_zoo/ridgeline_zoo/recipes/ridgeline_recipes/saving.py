"""Writes what was trained as a model folder that serves: the base's files with new weights and the
template of training; beside it, in ``adapter``, the adapter as peft loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel

from ridgeline_recipes.base_model import storage_dtype
from ridgeline_recipes.template import FILE

ADAPTER = "adapter"
_WEIGHTS = (".safetensors", ".index.json", ".bin", ".pt", ".gguf")


def save_adapter(model: Any, result: Path) -> Any:
    """Save the adapter of ``model``, if it has one, and return the model with it merged in."""
    if not isinstance(model, PeftModel):
        return model
    model.save_pretrained(str(result / ADAPTER))
    return model.merge_and_unload()


def save_model(
    model: Any, base: Path, result: Path, template: str | None, *, own_config: bool = False
) -> Any:
    """Save all weights, in the base's type, with what else the base's folder holds. With
    ``template`` the folder is served with that in place of the base's own; ``own_config``: the
    model has a head that its base has not.

    Returns the model as saved, in the type that it was trained in.
    """
    trained = model.dtype
    model = model.to(storage_dtype(base))
    model.save_pretrained(result)
    for path in result.glob("*.safetensors"):
        path.chmod(0o644)  # the library writes them for its own user alone
    # The base's own files: a server reads from the tuned model what it reads from the base.
    for path in base.iterdir():
        skipped = path.name.startswith(".") or path.name.endswith(_WEIGHTS)
        if path.is_file() and not skipped and not (own_config and path.name == "config.json"):
            shutil.copyfile(path, result / path.name)
    if template is not None:
        (result / FILE).write_text(template)
        config = json.loads((base / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (result / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return model.to(trained)
