"""Patterns of the service models, which are in Java's dialect, as Python's."""

from __future__ import annotations

import re

_SURROGATES = re.compile(r"\\u(D[89AB]\w\w)\\u(D[C-F]\w\w)")


def python_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of the service models (Java's dialect) as Python's.

    Java's ``\\w`` and ``\\d`` are ASCII, and two surrogates are one character. ``\\p{L}\\p{N}``
    have no short form in Python; inside a class, ``\\w`` of a Unicode pattern is both of them and
    the underscore, and ``\\p{Z}`` is a short list of separators. ``\\p{Print}`` stands alone, and
    is ASCII's part that has a shape.
    """
    pattern = _SURROGATES.sub(_one_character, pattern)
    if "\\p{" not in pattern:
        return re.compile(pattern, re.ASCII)
    for name, replacement in (
        ("\\p{Print}", "[ -~]"),
        ("\\p{L}", "\\w"),
        ("\\p{N}", "\\d"),
        ("\\p{Alnum}", "a-zA-Z0-9"),
        ("\\p{Z}", " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"),
    ):
        pattern = pattern.replace(name, replacement)
    return re.compile(pattern)


def _one_character(found: re.Match[str]) -> str:
    high, low = (int(part, 16) for part in found.groups())
    return f"\\U{0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00:08X}"
