"""The environment of a model whose endpoints run as a setting says (docs/neuron.md)."""

from __future__ import annotations

from ridgeline_backends.neuron.devices import Instance
from ridgeline_backends.neuron.planning.ranking import Setting


def is_deployable(instance: Instance) -> bool:
    """Whether endpoints have such a type: racks of several machines are none, nor is what is not
    rented yet."""
    return instance.ram_gib is not None and "ultraserver" not in instance.name


def environment(
    setting: Setting, *, copies: int | None = None, length: int | None = None
) -> dict[str, str]:
    """What differs from an endpoint's own choice, and its shape. `copies`: of the model; None: as
    many as there is room for. `length`: positions of a sequence; None: the endpoint's choice."""
    found = {
        "OPTION_TENSOR_PARALLEL_DEGREE": str(setting.tp),
        "OPTION_DATA_PARALLEL_SIZE": str(copies or setting.copies),
        "OPTION_MAX_ROLLING_BATCH_SIZE": str(setting.batch),
    }
    if setting.lnc != setting.instance.chip.default_lnc:
        found["NEURON_LOGICAL_NC_CONFIG"] = str(setting.lnc)
    if setting.quantized:
        found["OPTION_QUANTIZE"] = "int8"
    if length is not None:
        found["OPTION_MAX_MODEL_LEN"] = str(length)
    return found
