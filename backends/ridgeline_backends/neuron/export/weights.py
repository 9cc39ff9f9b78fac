"""A checkpoint's tensors for the weights of a module: whether they fit, and each core's part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ridgeline_backends.neuron.execute.rounding import LARGEST_E4M3
from ridgeline_backends.neuron.export.errors import CompileError, InvalidWeights
from ridgeline_backends.neuron.export.layers import PARTITION, WHOLE

_OWN_PART = (
    " What a core makes for its own part, and no layer cuts, is no weight: register such a buffer "
    "with persistent=False."
)

_SHOWN = 5
"""Names in a message."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A weight of a module: the shape of one core's part, the axis it is cut along, and how long
    the whole is there; None where the layer does not say. `tied`: all names of the same tensor."""

    shape: tuple[int, ...]
    axis: int | None = None
    size: int | None = None
    tied: tuple[str, ...] = field(default=())

    def fits(self, found: tuple[int, ...], cores: int) -> bool:
        if self.axis is None:
            return found == self.shape
        whole = found[self.axis : self.axis + 1]
        if not whole or found[: self.axis] + found[self.axis + 1 :] != (
            self.shape[: self.axis] + self.shape[self.axis + 1 :]
        ):
            return False
        if self.size is not None:
            return whole[0] == self.size
        return -(-whole[0] // cores) == self.shape[self.axis]

    def whole(self, cores: int) -> list[int]:
        """The shape that a checkpoint has."""
        shape = list(self.shape)
        if self.axis is not None:
            shape[self.axis] = self.size or shape[self.axis] * cores
        return shape


def expected_of(module: nn.Module) -> dict[str, Expected]:
    """By the names of the state dict; one name for each place of a tensor that has several."""
    state = module.state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            names.setdefault(id(tensor), []).append(name)
    return {
        name: Expected(
            tuple(tensor.shape),
            getattr(tensor, PARTITION, None),
            getattr(tensor, WHOLE, None),
            tuple(names[id(tensor)]),
        )
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }


def matched(
    expected: Mapping[str, Expected], given: Mapping[str, Tensor], cores: int
) -> dict[str, Tensor]:
    """The tensor of every weight. A weight that is tied to another may be given by any of its
    names. Raises `InvalidWeights` for other names, other shapes and what is no tensor."""
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    for name, one in expected.items():
        names = [other for other in (name, *one.tied) if other in given]
        if not names:
            missing.append(name)
            continue
        tensor = given[names[0]]
        if not isinstance(tensor, Tensor):
            raise InvalidWeights(
                f"Weight {name!r} is {_a(tensor)}, not a tensor.", hint="Pass a state dict."
            )
        if not one.fits(tuple(tensor.shape), cores):
            raise InvalidWeights(
                f"Weight {name!r} is {list(tensor.shape)}, and the module needs "
                f"{one.whole(cores)}.",
                hint="Pass the state dict of the module that is made for one core: whole tensors, "
                "which are cut here." + (_OWN_PART if cores > 1 and one.axis is None else ""),
            )
        for other in names[1:]:
            if given[other] is not tensor and not torch.equal(given[other], tensor):
                raise InvalidWeights(
                    f"Weights {names[0]!r} and {other!r} are one tensor of the module, and differ.",
                    hint="Give the one that counts, under either name.",
                )
        found[name] = tensor
    unexpected = [name for name in given if name not in expected]
    if missing or unexpected:
        raise _other_names(missing, unexpected)
    return found


def _other_names(missing: Sequence[str], unexpected: Sequence[str]) -> InvalidWeights:
    parts = [
        f"{what}: {_listed(names)}"
        for what, names in (("Missing weights", missing), ("Unexpected weights", unexpected))
        if names
    ]
    return InvalidWeights(
        ". ".join(parts) + ".",
        hint="Pass the state dict of the module that is made for one core; a prefix such as "
        "'module.' must be taken off its names.",
    )


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(map(repr, every[:_SHOWN])) + more


def _a(value: object) -> str:
    return f"of type {type(value).__name__}"


def check_range(what: str, tensor: Tensor, refusal: type[CompileError] = InvalidWeights) -> None:
    """Raises `refusal` for 8-bit floats that a core does not have: its own end at 240, those of
    checkpoints at 448."""
    if tensor.dtype is not torch.float8_e4m3fn or not tensor.numel():
        return
    most = float(tensor.float().abs().max())
    if most > LARGEST_E4M3:
        raise refusal(
            f"{what} has numbers up to {most:g}, and 8-bit floats of a core end at "
            f"{LARGEST_E4M3:g}.",
            hint="Halve the numbers and double the scale that they are multiplied with.",
        )


def parts_of(whole: Tensor, axis: int | None, cores: int) -> list[Tensor]:
    """Each core's part, equal in size, the last filled up with zeros; one tensor where it is not
    cut."""
    if axis is None:
        return [whole] * cores
    lacking = -whole.shape[axis] % cores
    if lacking:
        shape = (*whole.shape[:axis], lacking, *whole.shape[axis + 1 :])
        whole = torch.cat([whole, whole.new_zeros(shape)], axis)
    return list(whole.chunk(cores, axis))
