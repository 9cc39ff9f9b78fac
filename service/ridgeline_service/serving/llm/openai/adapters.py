"""``/v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``, in vLLM's form."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Len

from ridgeline_service.serving.llm.answers import Answer, json_answer
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.model import TextModel

Name = Annotated[str, Len(min_length=1, max_length=256)]


class LoadBody(Body):
    lora_name: Name
    lora_path: Annotated[str, Len(min_length=1)]

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {"load_inplace": (False,)}


class UnloadBody(Body):
    lora_name: Name
    lora_int_id: int | None = None


async def load_adapter(model: TextModel, body: Mapping[str, object]) -> Answer:
    """Answer when requests may name the adapter. Raises what `Engine.load_adapter` raises."""
    request = LoadBody.read(body)
    if request.lora_name == model.name:
        raise BadRequest(f"{request.lora_name!r} is the model's own name.", param="lora_name")
    # Its files are read on a thread, so that nobody's stream waits for them.
    await asyncio.to_thread(model.engine.load_adapter, request.lora_name, Path(request.lora_path))
    model.adapters[request.lora_name] = request.lora_path
    return json_answer({"object": "adapter", "id": request.lora_name, "status": "loaded"})


async def unload_adapter(model: TextModel, body: Mapping[str, object]) -> Answer:
    """Answer when the last sequence that uses the adapter has ended; new ones are refused from
    now on. Raises UnknownAdapter."""
    request = UnloadBody.read(body)
    gone = await asyncio.to_thread(model.engine.unload_adapter, request.lora_name)
    await asyncio.wrap_future(gone)
    return json_answer({"object": "adapter", "id": request.lora_name, "status": "unloaded"})
