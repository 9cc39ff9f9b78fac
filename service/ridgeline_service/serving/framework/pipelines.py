"""Defaults of the Hugging Face toolkit: a transformers pipeline where there is no inference.py."""

from __future__ import annotations

import csv
import importlib
import io
import json
from pathlib import Path
from typing import Any

from ridgeline_service.serving.framework import formats
from ridgeline_service.serving.framework.defaults import Defaults
from ridgeline_service.serving.framework.errors import BadRequest, ContractError

# Endings of a config's architecture, and the pipeline that serves it.
_TASKS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ForConditionalGeneration": "text2text-generation",
    "BertModel": "feature-extraction",
    "RobertaModel": "feature-extraction",
    "MPNetModel": "feature-extraction",
}
_COLUMNS = ("inputs", "question", "context")


class PipelineDefaults(Defaults):
    """A pipeline by HF_TASK, else by the config's architecture. Bodies hold ``inputs`` and
    ``parameters``."""

    def __init__(self, default_accept: str, task: str) -> None:
        super().__init__(default_accept)
        self._task = task

    def model_fn(self, model_dir: str) -> Any:
        """Raises ContractError where the task is neither given nor to be seen from config.json, or
        this version of transformers has no pipeline for it."""
        task = self._task or task_of(Path(model_dir) / "config.json")
        transformers: Any = importlib.import_module("transformers")
        known = sorted(transformers.pipelines.SUPPORTED_TASKS)
        if task not in known and task not in transformers.pipelines.TASK_ALIASES:
            raise ContractError(
                f"transformers {transformers.__version__} has no pipeline {task!r}: add an "
                f"inference.py with a model_fn. It has: {', '.join(known)}."
            )
        return transformers.pipeline(task=task, model=model_dir)

    def input_fn(self, body: bytes | str, content_type: str) -> Any:
        return decode_for_pipeline(body, content_type)

    def predict_fn(self, data: Any, model: Any) -> Any:
        if not isinstance(data, dict):
            return _called(model, data, {})
        parameters = data.get("parameters") or {}
        inputs = data.get("inputs", {key: data[key] for key in data if key != "parameters"})
        if not isinstance(parameters, dict):
            raise BadRequest("'parameters' must be a JSON object.")
        return _called(model, inputs, parameters)


def _called(model: Any, inputs: Any, parameters: dict[str, Any]) -> Any:
    """Pipelines say in these two what they cannot make of their input or parameters."""
    try:
        return model(inputs, **parameters)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"The pipeline refused the request: {error}") from error


def decode_for_pipeline(body: bytes | str, content_type: str = formats.JSON) -> Any:
    """JSON as it is; CSV with a header of ``inputs`` or ``question,context`` as a list; images and
    sound as the bytes that their pipelines read."""
    kind = formats.media_type(content_type)
    if kind == formats.CSV:
        return {"inputs": _rows(body if isinstance(body, str) else body.decode())}
    if kind.startswith(("image/", "audio/")):
        return {"inputs": body}
    return formats.decode(body, content_type)


def task_of(config: Path) -> str:
    """The pipeline task of a model by its config's architecture. Raises ContractError."""
    try:
        architectures = json.loads(config.read_text()).get("architectures") or []
    except FileNotFoundError:
        raise ContractError(
            f"{config} is missing, and there is no inference.py: set HF_TASK, or pack the model's "
            "files at the root of model.tar.gz."
        ) from None
    for architecture in architectures:
        for ending, task in _TASKS.items():
            if str(architecture).endswith(ending):
                return task
    raise ContractError(
        f"The task of architecture {', '.join(map(str, architectures)) or '(none)'} is not known: "
        "set HF_TASK."
    )


def _rows(text: str) -> list[Any]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not set(rows[0]) & set(_COLUMNS):
        raise BadRequest(f"A CSV body needs a header line with {' or '.join(_COLUMNS)}.")
    return [row["inputs"] for row in rows] if "inputs" in rows[0] else rows
