"""Faults on demand: what the Neuron runtime answers when hardware fails, to try a service with.

`RIDGELINE_NEURON_FAULT` names one, and when: `hbm-error`, `core-hang:after=20`,
`numerical-error:every=50`. `after` counts steps of the engine that pass first, `every` makes it
happen again and again. A server that runs is asked by `ridgeline neuron fault`. Broken hardware
stays broken until the process is started anew, or told to be whole. Statuses and words are those
of libnrt (neuron-runtime/api/nrt_status.rst). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import BackendError

FAULT_VARIABLE = "RIDGELINE_NEURON_FAULT"
TIMEOUT_VARIABLE = "NEURON_RT_EXEC_TIMEOUT"
_TIMEOUT_S = 30.0


class NeuronRuntimeError(BackendError):
    """What an execution ended with. `status` is libnrt's number, `code` its name."""

    http_status = 500

    def __init__(self, code: str, status: int, words: str) -> None:
        super().__init__(
            f"{code} status={status} message={words!r}",
            hint=f"Asked for by {FAULT_VARIABLE} or `ridgeline neuron fault`.",
        )
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class _Kind:
    """`lasting`: the core is lost to this process. `alone`: it happens to one core alone too."""

    code: str
    status: int
    words: str
    lasting: bool = True
    alone: bool = True


_KINDS: Mapping[str, _Kind] = {
    "core-hang": _Kind(
        "NRT_TIMEOUT", 5, "inference timeout, waiting for execution completion", lasting=False
    ),
    "hbm-error": _Kind("NRT_EXEC_HW_ERR_HBM_UE", 1201, "uncorrectable error in device memory"),
    "core-error": _Kind("NRT_EXEC_HW_ERR_NC_UE", 1202, "uncorrectable error in SRAM of the core"),
    "dma-abort": _Kind("NRT_EXEC_HW_ERR_DMA_ABORT", 1203, "DMA engine aborted"),
    "link-down": _Kind(
        "NRT_EXEC_HW_ERR_COLLECTIVES", 1200, "collective failed, NeuronLink is down", alone=False
    ),
    "numerical-error": _Kind(
        "NRT_EXEC_COMPLETED_WITH_NUM_ERR", 1003, "execution completed with NaN", lasting=False
    ),
    "allocation-failure": _Kind("NRT_RESOURCE", 4, "Allocation Failure"),
}


class Faults:
    """What happens to the steps of one runtime: of all copies of a model, counted together."""

    def __init__(
        self, name: str = "", *, after: int = 0, every: int = 0, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """No name: nothing happens. Raises `InvalidInput` for one that there is not."""
        if name and name not in _KINDS:
            close = get_close_matches(name, _KINDS, n=1)
            suggestion = f"Did you mean {close[0]!r}? " if close else ""
            raise InvalidInput(
                f"There is no fault {name!r}.",
                hint=f"{suggestion}There are: {', '.join(_KINDS)}.",
            )
        self._kind = _KINDS.get(name)
        self._loads = name != "allocation-failure"
        self._hangs = name == "core-hang"
        self._next = after
        self._every = every
        self._timeout_s = timeout_s
        self._steps = 0
        self._broken = False

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Faults:
        """As the environment asks. Raises `InvalidInput`."""
        name, _, rest = environment.get(FAULT_VARIABLE, "").partition(":")
        given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
        for key, value in given.items():
            if key not in ("after", "every") or not value.isdigit():
                raise InvalidInput(
                    f"{FAULT_VARIABLE}: {key}={value} is not understood.",
                    hint="Give after=STEPS or every=STEPS.",
                )
        timeout = environment.get(TIMEOUT_VARIABLE, "")
        return cls(
            name,
            after=int(given.get("after", 0)),
            every=int(given.get("every", 0)),
            timeout_s=float(timeout) if timeout.isdigit() else _TIMEOUT_S,
        )

    @property
    def broken(self) -> str:
        """What every further step ends with, "" where none does."""
        return self._lost().message if self._broken else ""

    def instead(self, name: str, *, after: int, every: int, cores: int) -> Faults:
        """Another fault on whole hardware of so many cores, from the next step on; no name: none.
        Raises `InvalidInput`, for one that cannot happen to them too."""
        if name == "allocation-failure":
            raise InvalidInput(
                f"{name} happens when a model is loaded, and this one is.",
                hint=f"Deploy with {FAULT_VARIABLE}={name} in the container's environment.",
            )
        changed = Faults(name, after=after, every=every, timeout_s=self._timeout_s)
        if changed._kind is not None and not changed._kind.alone and cores == 1:
            raise InvalidInput(
                f"{name} cannot happen to one core alone, which has no link.",
                hint="Deploy with an OPTION_TENSOR_PARALLEL_DEGREE of 2 or more.",
            )
        return changed

    def load(self) -> None:
        """A model is loaded. Raises `NeuronRuntimeError`."""
        if self._kind is not None and not self._loads:
            raise self._error(self._kind)

    def step(self, cores: int, sleep: Callable[[float], None]) -> None:
        """A step begins on so many cores. Raises `NeuronRuntimeError`."""
        if self._broken:
            raise self._lost()
        kind, place = self._kind, self._steps
        self._steps += 1
        if kind is None or not self._loads or place != self._next:
            return
        if not kind.alone and cores == 1:
            return
        self._next += self._every or 0
        self._broken = kind.lasting
        if self._hangs:
            sleep(self._timeout_s)
        raise self._error(kind)

    @staticmethod
    def _lost() -> NeuronRuntimeError:
        return NeuronRuntimeError(
            "NRT_EXEC_UNIT_UNRECOVERABLE", 101, "the core failed before, restart the process"
        )

    def _error(self, kind: _Kind) -> NeuronRuntimeError:
        return NeuronRuntimeError(kind.code, kind.status, kind.words)
