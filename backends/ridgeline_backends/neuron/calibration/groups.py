"""Which rows are of one architecture: what is left out together when a fit is tested.

Names differ where sizes do not (CodeLlama-13B is Llama-2-13B), so sizes decide.
"""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.catalogue import find

_KINDS = {
    "encoder": ("encoders",),
    "vision": ("vision",),
    "training": ("encoders", "vision", "decoders"),
}
_SIZES = (
    "hidden_size", "num_hidden_layers", "intermediate_size", "moe_intermediate_size", "builder",
    "depth", "patch", "inputs", "input_width", "block_out_channels", "depths", "image",
)  # fmt: skip


def architecture_of(row: Row) -> str:
    """A name for the sizes of a row's model; its own name where the catalogue lacks it."""
    if row.category == "collective":
        return f"{row.text('op')}-{row.text('ranks')}-{row.text('generation')}"
    if row.config is not None:
        return _sizes(row.config)
    plain = row.model.replace("pre-training", "").replace("fine-tuning", "").strip()
    for kind in _KINDS.get(row.category, ("decoders",)):
        try:
            return _sizes(find(plain, kind).config)
        except NotFound:
            continue
    return row.model


def _sizes(config: Mapping[str, object]) -> str:
    return "-".join(str(config.get(name)) for name in _SIZES if config.get(name) is not None)
