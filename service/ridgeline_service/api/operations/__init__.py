"""What the supported AWS operations do: one module per service, one table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Answer: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Caller:
    """Who calls: the id of the key that signed, as the gateway verified it."""

    principal: str


Handler: TypeAlias = Callable[[dict[str, object], Caller], Answer]
Table: TypeAlias = dict[str, Handler]
