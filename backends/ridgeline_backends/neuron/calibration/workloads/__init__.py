"""From a row to quantities: which programs its run executed, and how its fields follow from them.

One function per category. Raises `UnpredictableRow` for a row that says too little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ridgeline_backends.neuron.calibration.quantity import Quantity, Simulated
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads.collective import collective_quantities
from ridgeline_backends.neuron.calibration.workloads.decode import decode_quantities
from ridgeline_backends.neuron.calibration.workloads.encoder import encoder_quantities
from ridgeline_backends.neuron.calibration.workloads.encoder_decoder import (
    encoder_decoder_quantities,
)
from ridgeline_backends.neuron.calibration.workloads.profile import profile_quantities
from ridgeline_backends.neuron.calibration.workloads.serving import serving_quantities
from ridgeline_backends.neuron.calibration.workloads.training import training_quantities
from ridgeline_backends.neuron.calibration.workloads.vision import vision_quantities

_BY_CATEGORY: Mapping[str, Callable[[Row], Sequence[Quantity | Simulated]]] = {
    "llm_decode": decode_quantities,
    "llm_encdec": encoder_decoder_quantities,
    "llm_profile": profile_quantities,
    "serving": serving_quantities,
    "encoder": encoder_quantities,
    "vision": vision_quantities,
    "training": training_quantities,
    "collective": collective_quantities,
}


def quantities(row: Row) -> Sequence[Quantity | Simulated]:
    """All fields of a row that can be predicted."""
    row.check()
    if row.category not in _BY_CATEGORY:
        raise UnpredictableRow(f"{row.id}: rows of category {row.category!r} are not predicted.")
    if row.values.get("config") is not None and row.config is None:
        raise UnpredictableRow(
            f"{row.id}: config must be a mapping, not {row.values['config']!r}.",
            hint="Give what the model's config.json holds.",
        )
    return _BY_CATEGORY[row.category](row)
