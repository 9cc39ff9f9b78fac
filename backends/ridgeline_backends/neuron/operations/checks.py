"""What the kinds of operation ask of their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline_backends.neuron.program import Form, InvalidProgram


def require(condition: bool, kind: str, what: str, inputs: Sequence[Form]) -> None:
    """Raise `InvalidProgram` that names the kind, the rule and the shapes."""
    if not condition:
        shapes = ", ".join(f"{one.dtype}{list(one.shape)}" for one in inputs)
        raise InvalidProgram(f"{kind} {what}, not {shapes}.")


def take(inputs: Sequence[Form], kind: str, least: int, most: int | None = None) -> list[Form]:
    """The inputs, as many as the kind has."""
    most = least if most is None else most
    require(least <= len(inputs) <= most, kind, f"takes {least} to {most} inputs", inputs)
    return list(inputs)


def broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of an elementwise result, sizes of 1 stretched; None if they do not go together."""
    width = max(len(left), len(right))
    wide = ((1,) * (width - len(left)) + left, (1,) * (width - len(right)) + right)
    shape = []
    for a, b in zip(*wide, strict=True):
        if a != b and 1 not in (a, b):
            return None
        shape.append(b if a == 1 else a)
    return tuple(shape)


def axis_of(axis: int, rank: int, kind: str, inputs: Sequence[Form]) -> int:
    """The axis counted from the front."""
    require(-rank <= axis < rank, kind, f"has no axis {axis}", inputs)
    return axis % rank
