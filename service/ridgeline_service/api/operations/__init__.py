"""What the supported AWS operations do: one module per service, one table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ridgeline_service.api.control_port import Request, Response

Answer: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Caller:
    """Who calls: the id of the key that signed, as the gateway verified it; of temporary
    credentials of that key also their name, and until when they are good, in seconds since the
    epoch."""

    principal: str
    session: str = ""
    until: int | None = None


Handler: TypeAlias = Callable[[dict[str, object], Caller], Answer]
Table: TypeAlias = dict[str, Handler]


def handlers(verbs: Mapping[str, Callable[[Request], Response]]) -> Table:
    """Verbs of the control plane, which ask nobody who calls, as handlers."""
    return {name: _handler(verb) for name, verb in verbs.items()}


def _handler(verb: Callable[[Request], Response]) -> Handler:
    def handle(request: dict[str, object], caller: Caller) -> Answer:
        return verb(request)

    return handle
