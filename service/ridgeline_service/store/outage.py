"""Failures that are the database's or the disk's, told apart from bugs of ours."""

from __future__ import annotations

import logging

from sqlalchemy.exc import InterfaceError, OperationalError

from ridgeline_service.errors import ServiceUnavailable, disk_full

DATABASE_AWAY = (OperationalError, InterfaceError)


def outage(error: BaseException) -> ServiceUnavailable | None:
    """What to tell of an error that passes when the database or the disk is well again; None for
    any other."""
    if not isinstance(error, DATABASE_AWAY):
        return disk_full(error)
    full = disk_full(error.orig) if error.orig is not None else None
    said = " ".join(str(error.orig).split())[:300].rstrip(".")
    return full or ServiceUnavailable(
        f"The database cannot be used: {said}.",
        hint="Check that its server runs and can be reached, then try again.",
    )


def log_failure(log: logging.Logger, error: BaseException, text: str, *values: object) -> None:
    """One line for an outage, a traceback for a bug. Call it while ``error`` is handled."""
    known = outage(error)
    if known is None:
        log.exception(text, *values)
    else:
        log.error(f"{text}: %s", *values, known.message)
