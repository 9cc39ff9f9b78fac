"""What a compilation job asks of the compiler: a target, shapes of inputs, and options.

Options are a JSON object of `NeuronConfig`'s fields, or the compiler's own flags in one string.
What is known and changes nothing here is refused by name, so that nobody waits for its effect.
Imports no torch.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.config import NeuronConfig, neuron_config
from ridgeline_backends.neuron.devices import Instance, instances
from ridgeline_backends.neuron.placement import Placement, allowed_degrees

TARGETS = {"ml_inf2": "inf2", "ml_trn1": "trn1", "ml_trn2": "trn2"}

_EFFECTLESS = ("--verbose", "--model-type", "--optlevel", "--framework")
"""They choose what a compiler says, or between ways that our lowering does not have."""


_DEFAULTS = NeuronConfig()
_ALIASES = {"max_batch_size": "batch_size"}


class InvalidOrder(BackendError):
    """A job that asks for what there is not."""

    code = "InvalidOrder"
    http_status = 400


@dataclass(frozen=True, slots=True)
class Order:
    """`settings` are fields of `NeuronConfig`, `shapes` those of inputs, by name."""

    target: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return TARGETS[self.target]


def read_order(target: str, shapes: str, options: str) -> Order:
    """All that needs no model is checked. Raises `InvalidOrder` and `InvalidNeuronConfig`, with the
    field at fault, and `InvalidInput` for an LNC that the target does not have."""
    if target not in TARGETS:
        raise InvalidOrder(
            f"Nothing is compiled for {target!r}.", hint=f"Targets: {', '.join(TARGETS)}."
        )
    order = Order(target, _shapes(shapes), _options(options, TARGETS[target]))
    _check(order)
    return order


def smallest_placement(order: Order) -> Placement:
    """The smallest instance type of the target that has the cores; a degree left out is the cores
    of one device. Raises `InvalidOrder` for a degree that none allows."""
    asked, lnc = order.settings.get("tp_degree"), order.settings.get("logical_nc_config")
    family = [one for one in instances().values() if one.name.startswith(f"{order.family}.")]
    for found in sorted(family, key=lambda one: (one.chips, one.price_usd_h or 0.0)):
        own = lnc if isinstance(lnc, int) else found.chip.default_lnc
        cores = asked if isinstance(asked, int) else found.chip.logical_cores(own)
        if cores in allowed_degrees(found, own):
            return Placement(found, own, cores)
    raise InvalidOrder(
        f"tp_degree {asked} is not one that the topology of {order.target} allows.",
        hint=f"Choose one of: {', '.join(map(str, _degrees(family)))}.",
    )


def _degrees(family: list[Instance]) -> list[int]:
    return sorted({one for found in family for one in found.tensor_parallel})


def _check(order: Order) -> None:
    """What a job would find out later, whatever the model is."""
    settings = order.settings
    for name, value in settings.items():
        default = getattr(_DEFAULTS, _ALIASES.get(name, name), "")
        if name.endswith("_buckets") or not (default is None or type(default) is int):
            continue
        if type(value) is int and value < 1:
            raise InvalidOrder(f"{name} must be at least 1, not {value}.")
        if type(value) is not int and not (value is None and default is None):
            raise InvalidOrder(f"{name} must be of type int, not {value!r}.")
    cores = smallest_placement(order).cores
    neuron_config({"seq_len": _longest(settings), **settings, "tp_degree": cores})


def _longest(settings: Mapping[str, object]) -> int:
    """The longest length that is named: no more is known of `seq_len` where the model decides."""
    found: list[object] = [settings.get("max_context_length")]
    for name in ("buckets", "context_encoding_buckets", "token_generation_buckets"):
        listed = settings.get(name)
        found += listed if isinstance(listed, list) else []
    return max((one for one in found if isinstance(one, int)), default=1)


def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """DataInputConfig: {"input": [1, 3, 224, 224]}, or a list of one shape, or none."""
    if not text:
        return {}
    given = _json(text, "DataInputConfig")
    if isinstance(given, list):
        listed = given if given and isinstance(given[0], list) else [given]
        given = {f"input{place}": shape for place, shape in enumerate(listed)}
    if not isinstance(given, dict):
        raise InvalidOrder(
            "DataInputConfig must be an object of shapes.", hint='Like {"input": [1, 3, 224, 224]}.'
        )
    found: dict[str, tuple[int, ...]] = {}
    for name, value in given.items():
        shape = value.get("shape") if isinstance(value, dict) else value
        sizes = shape if isinstance(shape, list) else []
        if not sizes or not all(type(size) is int and size > 0 for size in sizes):
            raise InvalidOrder(
                f"The shape of {name!r} in DataInputConfig is {value!r}.",
                hint="Shapes are static: a list of positive whole numbers.",
            )
        found[name] = tuple(sizes)
    return found


def _options(text: str, family: str) -> dict[str, object]:
    if not text:
        return {}
    given = _json(text, "CompilerOptions") if text.lstrip()[:1] in ('"', "{") else text
    if isinstance(given, dict):
        return given
    return _flags(str(given), family)


def _flags(text: str, family: str) -> dict[str, object]:
    found: dict[str, object] = {}
    words = iter(_words(text))
    for word in words:
        if not word.startswith("-"):
            raise InvalidOrder(
                f"CompilerOptions must be a JSON object or the compiler's flags, not {text!r}.",
                hint='Like {"tp_degree": 8}, or --num-neuroncores 8.',
            )
        if word in ("-O1", "-O2", "-O3"):
            continue
        value = next(words, None)
        if value is None:
            raise InvalidOrder(f"The compiler's flag {word} has no value.")
        if word in _EFFECTLESS:
            continue
        if word in ("--num-neuroncores", "--lnc", "--logical-nc-config"):
            if re.fullmatch("[0-9]+", value) is None:
                raise InvalidOrder(f"The compiler's flag {word} takes a number, not {value!r}.")
            name = "tp_degree" if word == "--num-neuroncores" else "logical_nc_config"
            found[name] = int(value)
        elif word == "--target":
            if value != family:
                raise InvalidOrder(
                    f"--target {value} contradicts the job's target device ml_{family}."
                )
        elif (word, value) != ("--auto-cast", "none"):
            raise InvalidOrder(
                f"The compiler's flag {word} {value} is not one there is here.",
                hint="There are --num-neuroncores, --lnc, --target and --auto-cast none.",
            )
    return found


def _words(text: str) -> list[str]:
    try:
        found = shlex.split(text)
    except ValueError as error:
        raise InvalidOrder(
            f"CompilerOptions cannot be read as flags: {error}.", hint="Close every quotation."
        ) from error
    return [word for one in found for word in one.split("=", 1)]


def _json(text: str, field_name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOrder(f"{field_name} is no JSON: {error}.") from error
