"""LoRA adapters that a model server loads at its start, as vLLM's users write them.

    [{"name": "poet", "path": "adapters/poet"}, {"name": "cook", "path": "/opt/ml/model/cook"}]
    poet=adapters/poet cook=/opt/ml/model/cook

A path that is not absolute is one inside the model's directory. Reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ridgeline_service.serving.llm.errors import InvalidSetting

_Word = Annotated[str, Len(min_length=1)]


class LoraModule(BaseModel):
    """An adapter's name and its directory. ``base_model_name`` is accepted, for vLLM has it: there
    is one model."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: _Word
    path: _Word
    base_model_name: str | None = None

    def directory(self, model_dir: Path) -> Path:
        """Where it lies."""
        return model_dir / self.path


_MODULES: TypeAdapter[list[LoraModule]] = TypeAdapter(list[LoraModule])


def read_lora_modules(source: str, text: str) -> tuple[LoraModule, ...]:
    """Raises InvalidSetting, which names `source`."""
    try:
        if text.startswith("["):
            modules = _MODULES.validate_json(text)
        elif text.startswith("{"):
            modules = [LoraModule.model_validate_json(text)]
        else:
            modules = list(_pairs(text.split()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(source, text, f"{where or 'it'}: {first['msg']}") from None
    names = [module.name for module in modules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _refused(source, text, f"{twice!r} is there twice")
    return tuple(modules)


def _pairs(words: Iterable[str]) -> Iterable[LoraModule]:
    for word in words:
        name, _, path = word.partition("=")
        yield LoraModule(name=name, path=path)


def _refused(source: str, text: str, why: str) -> InvalidSetting:
    return InvalidSetting(
        f"{source}={text} is not valid: {why}.",
        hint='Allowed: a list such as [{"name": "poet", "path": "adapters/poet"}].',
    )
