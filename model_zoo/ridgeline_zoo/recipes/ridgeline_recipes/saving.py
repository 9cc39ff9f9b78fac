"""Writes what was trained as a model folder that serves: the base's files with new weights and the
template of training; beside it, in ``adapter``, the adapter as peft loads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from ridgeline_recipes.base_model import storage_dtype
from ridgeline_recipes.template import FILE

ADAPTER = "adapter"
_WEIGHTS = (".safetensors", ".index.json", ".bin", ".pt", ".gguf")


@contextmanager
def saved_whole(result: Path) -> Iterator[Path]:
    """A folder to save a model in; what is in it lies in ``result`` once all of it was saved. Half
    a model is never there, whatever ends the recipe meanwhile."""
    room = result.with_name(f".{result.name}-unfinished")
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    yield room
    result.mkdir(exist_ok=True)
    for path in room.iterdir():
        place = result / path.name
        if place.is_dir():
            shutil.rmtree(place)
        path.replace(place)
    room.rmdir()


def save_tuned(model: Any, base: Path, result: Path, template: str | None) -> Any:
    """Save all that the training of a language model leaves, its adapter among it, and return the
    model with that merged in."""
    with saved_whole(result) as room:
        return save_model(save_adapter(model, room, template), base, room, template)


def save_adapter(model: Any, result: Path, template: str | None) -> Any:
    """Save the adapter of ``model``, if it has one, with the template that it was trained with, and
    return the model with it merged in."""
    if not isinstance(model, PeftModel):
        return model
    model.save_pretrained(str(result / ADAPTER))
    if template is not None:
        (result / ADAPTER / FILE).write_text(template)
    chance = _chance()
    adapted: list[Any] = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    for layer in adapted:
        weights = layer.get_base_layer().weight
        update = layer.get_delta_weight(model.active_adapter).float()
        weights.data = rounded(weights.data.float() + update, weights.dtype, chance)
    return model.unload()


def save_model(
    model: Any, base: Path, result: Path, template: str | None, *, own_config: bool = False
) -> Any:
    """Save all weights, in the base's type, with what else the base's folder holds. With
    ``template`` the folder is served with that in place of the base's own; ``own_config``: the
    model has a head that its base has not.

    Returns the model as saved, in the type that it was trained in.
    """
    trained, chance = model.dtype, _chance()
    for weights in model.parameters():
        weights.data = rounded(weights.data, storage_dtype(base), chance)
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


def rounded(weights: torch.Tensor, kind: torch.dtype, chance: torch.Generator) -> torch.Tensor:
    """``weights`` in ``kind``; from fp32 to bf16 by chance, to the nearer neighbour more often.

    Most updates of a short training are smaller than half a step of bf16: the nearest number is
    then the old one, and half of what was learned would be lost. By chance they are there on
    average, and numbers that bf16 has stay as they are.
    """
    if kind is not torch.bfloat16 or weights.dtype is not torch.float32:
        return weights.to(kind)
    # bf16 is the upper half of fp32's bits: a carry out of the lower half goes to the next number.
    bits = weights.contiguous().view(torch.int32)
    below = torch.randint(1 << 16, bits.shape, dtype=torch.int32, generator=chance)
    found = (bits + below.to(bits.device)) & ~0xFFFF
    return found.view(torch.float32).to(kind)


def _chance() -> torch.Generator:
    """The same at each save, so that the same training ends with the same bits."""
    return torch.Generator().manual_seed(0)
