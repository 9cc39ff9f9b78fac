"""Days as rows write them: ISO, with slashes, or with the name of a month."""

from __future__ import annotations

import re
from datetime import date

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_NUMBERS = re.compile(r"(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2})(?:[t ]\d.*)?)?)?", re.ASCII)
_NAMED = (
    re.compile(r"(?:(?P<day>\d{1,2})(?:st|nd|rd|th)? )?(?P<month>[a-z]{3,})\.?,? (?P<year>\d{4})"),
    re.compile(r"(?P<month>[a-z]{3,})\.? (?P<day>\d{1,2})(?:st|nd|rd|th)?,? (?P<year>\d{4})"),
)
_NONE = ("", "none", "unknown", "n/a", "-")


def read_date(text: str) -> date | None:
    """The day that is written; of a month or a year alone its first. None where nothing is. Raises
    `ValueError` for what is no date."""
    written = text.strip().lower()
    if written in _NONE:
        return None
    numbers = _NUMBERS.fullmatch(written)
    if numbers:
        year, month, day = (int(one or 1) for one in numbers.groups())
        return date(year, month, day)
    for pattern in _NAMED:
        if found := pattern.fullmatch(written):
            return date(int(found["year"]), _month(found["month"]), int(found["day"] or 1))
    raise ValueError(text)


def _month(name: str) -> int:
    full = next((one for one in _MONTHS if one.startswith(name)), name)
    return _MONTHS.index(full) + 1
