"""One call from a config to a program. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI, LibraryRules
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.program import Program


def build_decoder(
    config: Mapping[str, object],
    neuron_config: NeuronConfig,
    *,
    phase: Phase,
    bucket: int,
    rules: LibraryRules = NXDI,
    batch: int | None = None,
) -> Program:
    """The program of a Hugging Face config. Raises `InvalidModel` and `UnsupportedModel`."""
    return decoder_program(
        decoder_architecture(config),
        neuron_config,
        phase=phase,
        bucket=bucket,
        rules=rules,
        batch=batch,
    )
