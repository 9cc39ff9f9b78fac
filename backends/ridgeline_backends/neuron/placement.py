"""Which cores of which instance type a model runs on. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.neuron.devices import Instance, instance, instances
from ridgeline_backends.neuron.timing.machine import Machine

DEFAULT_INSTANCE = "inf2.xlarge"


@dataclass(frozen=True, slots=True)
class Placement:
    """`copies` groups of `cores` logical cores, each of `lnc` physical ones."""

    instance: Instance
    lnc: int
    cores: int
    copies: int = 1

    @property
    def machine(self) -> Machine:
        return Machine(self.instance, self.lnc)

    @property
    def core_memory_bytes(self) -> int:
        return self.instance.core_memory_bytes(self.lnc)

    @property
    def all_cores(self) -> int:
        """Of all copies together."""
        return self.cores * self.copies

    @property
    def room(self) -> int:
        """How many such groups the instance has."""
        return self.instance.cores(self.lnc) // self.cores

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why such groups cannot be: the topology allows some sizes only, and so many of them."""
        allowed = allowed_degrees(self.instance, self.lnc)
        if self.cores in allowed:
            return self._too_many()
        listed = ", ".join(map(str, allowed))
        return (
            f"tp_degree {self.cores} is not one that the topology of {self.instance.name} allows "
            f"at LNC {self.lnc}. Choose one of: {listed}.",
        )

    def _too_many(self) -> tuple[str, ...]:
        if self.copies <= self.room:
            return ()
        each = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return (
            f"{self.copies} copies of {each} are more than the "
            f"{self.instance.cores(self.lnc)} cores of {self.instance.name} at LNC {self.lnc}. "
            f"Choose a data_parallel_size of at most {self.room}, or a smaller tp_degree.",
        )


def allowed_degrees(found: Instance, lnc: int) -> tuple[int, ...]:
    """Tensor-parallel degrees of an instance type, rising."""
    return tuple(one for one in found.tensor_parallel if one <= found.cores(lnc))


def place(name: str | None, degree: int | None, lnc: int | None, *, copies: int = 1) -> Placement:
    """`degree` None: the cores of one device. Raises `InvalidInput` for an unknown instance type or
    an LNC that its chip does not have."""
    found = instance((name or DEFAULT_INSTANCE).removeprefix("ml."))
    own = found.chip.default_lnc if lnc is None else lnc
    return Placement(
        found, own, found.chip.logical_cores(own) if degree is None else degree, copies
    )


def executes(name: str) -> str:
    """Why no program is executed for an instance type, as "ml.inf1.xlarge"; "" where one is."""
    known = instances()
    found = known.get(name.removeprefix("ml."))
    if found is None:
        listed = ", ".join(sorted(known))
        return f"no devices of {name} are simulated; those of {listed} are"
    if found.chip.neuroncore == "v1":
        return "NeuronCore-v1 of Inferentia1 has no programs of this compiler; ml.inf2 types have"
    return ""
