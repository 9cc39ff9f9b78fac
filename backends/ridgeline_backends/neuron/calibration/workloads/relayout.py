"""Matrices of experts that lie as decode steps want them, and are turned back for a prompt.

NxD has the compiler lay weights out for one graph, the one of token generation (its priority), and
has every other graph begin with that layout (`trace/model_builder.py`: what the compiler suggests
is a reshape and a permutation of each weight). How long that takes is inferred from one sweep on
Inferentia2: intervals reach as far as the prompt without it.
"""

from __future__ import annotations

import numpy as np

from ridgeline_backends.neuron.operations import ExpertMatmul
from ridgeline_backends.neuron.program import Form, Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import Part, Work, row_seconds


def relaid(prompt: Program, step: Program, machine: Machine) -> Work:
    """What that adds to a prompt in which every expert computes every token: nothing where steps do
    so too. Steps that fetch experts by number want them in another order: DMA brings what the
    prompt needs number by number. Nothing but on NeuronCore-v2: of later cores, whose hardware
    makes descriptors, no row shows it."""
    fetched = any(by_number for by_number, _, _ in _matrices(step))
    if not fetched or machine.chip.neuroncore != "v2":
        return Work(np.zeros((0, len(Part))))
    rows = np.zeros((0, len(Part)))
    for by_number, form, repeats in _matrices(prompt):
        row = np.zeros((1, len(Part)))
        row[0, Part.EXPERTS] = row_seconds(form.bytes, form.dtype.bytes, machine)
        row[0, Part.REPEATS], row[0, Part.BEGINS] = repeats, 1.0
        rows = np.concatenate((rows, row * (not by_number)))
    return Work(rows)


def _matrices(program: Program) -> list[tuple[bool, Form, int]]:
    """Of each product: whether its experts are fetched by number, what a core holds of all, and how
    often there is such a layer."""
    return [
        (one.attributes.rows is None, one.inputs[1].form, section.repeats)
        for section in program.sections
        for one in section.operations
        if isinstance(one.attributes, ExpertMatmul)
    ]
