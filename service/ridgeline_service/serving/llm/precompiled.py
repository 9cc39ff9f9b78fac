"""What a compilation job compiled a model for: static shapes, taken by an endpoint as they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ridgeline_service.serving.llm.errors import InvalidSetting, LoadFailed
from ridgeline_service.serving.llm.settings import DtypeName, ModelSettings

log = logging.getLogger(__name__)

FILE = "neuron/compiled.json"
"""Beside the model, in the artifact of CreateCompilationJob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precompiled:
    """``batch`` sequences of at most ``length`` positions on ``cores`` logical cores of ``lnc``;
    numbers in ``dtype``, matrices and KV in 8 bits as ``weights`` and ``kv`` say."""

    target: str
    instance_type: str
    cores: int
    lnc: int
    batch: int
    length: int
    dtype: DtypeName
    weights: str | None
    kv: bool

    @classmethod
    def read(cls, directory: Path) -> Precompiled | None:
        """None for a model that was not compiled. Raises LoadFailed."""
        path = directory / FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            batch, length = found["inputs"]["input_ids"]
            return cls(
                target=found["target"],
                instance_type=found["instance_type"],
                cores=found["neuron_cores"],
                lnc=found["logical_neuroncore_config"],
                batch=batch,
                length=length,
                dtype=found["torch_dtype"],
                weights=found["quantization_dtype"] if found["quantized"] else None,
                kv=found["kv_cache_quant"],
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise LoadFailed(
                f"{FILE} is not what a compilation job writes: {error!r}.",
                hint="Compile the model again, or leave the folder out.",
            ) from error


def as_compiled(directory: Path, settings: ModelSettings) -> ModelSettings:
    """With what the model was compiled for. Raises InvalidSetting for a setting that contradicts
    it, and LoadFailed for another chip and for numbers that endpoints do not have."""
    if settings.instance is None:
        if (directory / FILE).is_file():
            log.warning("The model was compiled for Neuron, and runs on this machine itself.")
        return settings
    made = Precompiled.read(directory)
    if made is None:
        return settings
    _check_chip(made, settings.instance)
    for setting, asked, compiled in _fixed(made, settings):
        if asked not in (None, compiled):
            raise InvalidSetting(
                f"{setting}={asked}, and the model was compiled for {compiled} ({FILE}).",
                hint="Leave the setting out, or compile the model for it.",
            )
    if made.kv or made.weights not in (None, "int8"):
        kept = "its KV in 8 bits" if made.kv else f"weights of {made.weights}"
        raise LoadFailed(
            f"The model was compiled with {kept}, which endpoints do not have ({FILE}).",
            hint='Compile it without, or with {"quantized": true}.',
        )
    if settings.quantize is not None and made.weights is None:
        raise InvalidSetting(
            f"OPTION_QUANTIZE={settings.quantize}, and the model was compiled as it is ({FILE}).",
            hint='Leave the setting out, or compile the model with {"quantized": true}.',
        )
    return replace(
        settings,
        dtype=made.dtype,
        quantize=None if made.weights is None else "int8",
        tensor_parallel=made.cores,
        logical_nc_config=made.lnc,
        max_num_seqs=made.batch,
        exact_num_seqs=True,
        max_model_len=made.length,
    )


def _fixed(
    made: Precompiled, settings: ModelSettings
) -> Iterator[tuple[str, int | str | None, int | str]]:
    """What sets each, what was asked for, and what the model was compiled for."""
    yield "OPTION_TENSOR_PARALLEL_DEGREE", settings.tensor_parallel, made.cores
    yield "NEURON_LOGICAL_NC_CONFIG", settings.logical_nc_config, made.lnc
    batch = settings.max_num_seqs if settings.exact_num_seqs else None
    yield "OPTION_MAX_ROLLING_BATCH_SIZE", batch, made.batch
    yield "OPTION_MAX_MODEL_LEN", settings.max_model_len, made.length
    yield "OPTION_DTYPE", settings.dtype, made.dtype


def _check_chip(made: Precompiled, instance: str) -> None:
    # Here, because it reads the device model, which other replicas do without.
    from ridgeline_backends.neuron.devices import instance as device

    compiled, here = (
        device(name.removeprefix("ml.")).chip for name in (made.instance_type, instance)
    )
    if compiled.neuroncore != here.neuroncore:
        raise LoadFailed(
            f"The model was compiled for {made.target} (NeuronCore-{compiled.neuroncore}), and "
            f"{instance} has NeuronCore-{here.neuroncore}.",
            hint=f"Compile it for {instance}, or choose an instance type of {made.target}.",
        )
