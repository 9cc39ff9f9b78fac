"""A model that does not lie in its model data: LMI's archive with a serving.properties that names
it, or any archive with a model's id in the environment. The server gets one folder of both."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ridgeline_service.control.endpoints.planning import model_id_of
from ridgeline_service.serving.llm.properties import is_path, model_named_in, read_properties
from ridgeline_service.store.records import VariantSpec


def model_beside(data: Path, variant: VariantSpec) -> str:
    """The id of the model that goes with this data; empty where it lies there itself.
    option.model_id wins over the environment, where a name of the zoo wins over what lies there."""
    named = model_named_in(read_properties(data)) or variant.zoo_id
    if not named and not (data / "config.json").is_file():
        named = model_id_of(variant.container.environment) or ""
    return "" if is_path(named) else named


def lay_together(model: Path, data: Path, into: Path) -> None:
    """Make ``into`` the model with what came as data. Of a file that both have the model's stays,
    for its files belong together. All three lie on one file system."""
    shutil.copytree(model, into, copy_function=os.link, dirs_exist_ok=True)
    shutil.copytree(data, into, copy_function=_link_if_new, dirs_exist_ok=True)


def _link_if_new(source: str, target: str) -> None:
    if not os.path.lexists(target):
        os.link(source, target)
