"""What a regular expression or a grammar costs to compile, before it is.

Where parts that may be left out follow one another, as in ``a?a?a?``, the library makes an
expression for each way to begin, of all that may follow: time and memory grow with the number of
such parts times the length, and where there is no memory left the process ends. Counted
repetitions cost no more than their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from ridgeline_service.serving.llm.schema_walk import Schemas

MAX_COST = 2**24
"""Some 60 MB, a fifth of a second. It is 2,900 times ``a?``, of which the library follows a
third; and 500 expressions of 500 characters with 60 operators each."""

_OPTIONAL = re.compile(r"[?*{(]")
"""What begins or ends a part that may be left out: each such part has one of these at least."""

# What is begun and not ended the library refuses; here it ends where it must, in one passage.
_LARK = re.compile(
    r"""(?P<comment>(?:\#|//)[^\n]*)
    | (?P<inline>%json\s*)
    | "(?:\\.|[^"\\\n])*"?
    | /(?P<regex>(?:\\.|[^/\\])+)/?
    | ^[ \t]*(?P<head>%(?:ignore|import|declare|override)\b|[!?]*\w[\w-]*
      (?=(?:::\w+|\[[^\]\n]*\]|\([^)\n]*\)|\.\s*[+-]?\d+|\s)*:(?!:)))
    | (?P<name>[!?]?\w[\w-]*)
    | (?P<optional>[?*{(\[~])""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


def inline_schemas(lark: str) -> Iterator[int]:
    """Where in a grammar schemas begin, behind ``%json``."""
    return (found.end() for found in _LARK.finditer(lark) if found["inline"])


def pattern_cost(pattern: str) -> int:
    """Of one regular expression."""
    return len(_OPTIONAL.findall(pattern)) * len(pattern)


def schema_cost(schema: object) -> int:
    """Of all regular expressions of a JSON schema."""
    return sum(
        pattern_cost(pattern)
        for _, node in Schemas(schema)
        for pattern in chain([node.get("pattern")], _names(node.get("patternProperties")))
        if isinstance(pattern, str)
    )


def lark_cost(lark: str) -> int:
    """Of all regular expressions and terminals of a grammar in Lark's notation, each terminal with
    what it names."""
    here = _Definition()
    definitions = {"": here}
    cost = 0
    for found in _LARK.finditer(lark):
        if head := found["head"]:
            here = definitions.setdefault(head.lstrip("!?"), _Definition())
            continue
        if found["regex"]:
            cost += pattern_cost(found["regex"])
        here.add(found)
    for name in _inner_first(definitions):
        one = definitions.get(name)
        if one is None or not name.lstrip("_")[:1].isupper():
            continue
        for inner in one.names:
            one.include(definitions.get(inner))
        cost += one.length * one.optional
    return cost


@dataclass
class _Definition:
    length: int = 0
    optional: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, found: re.Match[str]) -> None:
        """A part of its text."""
        if found["comment"] or found["inline"]:
            return
        self.length += len(found[0])
        if found["name"]:
            self.names.append(found["name"].lstrip("!?"))
        elif found["regex"]:
            self.optional += len(_OPTIONAL.findall(found["regex"]))
        elif found["optional"]:
            self.optional += 1

    def include(self, other: _Definition | None) -> None:
        """What one of its names stands for; that may be nothing."""
        self.length += 1 if other is None else other.length
        self.optional += 1 if other is None else max(1, other.optional)


def _names(patterns: object) -> Iterable[str]:
    return patterns if isinstance(patterns, dict) else ()


def _inner_first(definitions: dict[str, _Definition]) -> list[str]:
    """None of them where one names itself; of terminals the library refuses that."""
    terminals = {
        name: [inner for inner in one.names if inner.lstrip("_")[:1].isupper()]
        for name, one in definitions.items()
        if name.lstrip("_")[:1].isupper()
    }
    try:
        return list(TopologicalSorter(terminals).static_order())
    except CycleError:
        return []
