"""Failures that are the database's or the disk's, told apart from bugs of ours."""

from __future__ import annotations

import logging
import sqlite3

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

from ridgeline_service.errors import ServiceUnavailable, disk_full

# Also what SQLite, and at times a driver, raises for a statement that is wrong.
_RAISED = (OperationalError, InterfaceError, InternalError)

_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
# SQLSTATE classes and codes (PostgreSQL, appendix A): connection, resources, the operator or the
# system at fault, a transaction that was undone, a lock not had, a statement that took too long, a
# transaction idle for too long.
_POSTGRES_AWAY = ("08", "53", "57P0", "58", "40", "55P03", "57014", "25P03")
# Serialization failure, deadlock.
_UNDONE = ("40001", "40P01")


def outage(error: BaseException) -> ServiceUnavailable | None:
    """What to tell of an error that passes when the database or the disk is well again; None for
    any other."""
    if not isinstance(error, _RAISED):
        return disk_full(error)
    cause = error.orig
    if cause is None or not _is_away(cause):
        return None
    if getattr(cause, "sqlstate", None) in _UNDONE:
        return ServiceUnavailable(
            "Another change of the same rows was in the way, and the database undid this one.",
            hint="Try again.",
        )
    said = " ".join(str(cause).split())[:300].rstrip(".")
    return disk_full(cause) or ServiceUnavailable(
        f"The database cannot be used: {said}.",
        hint="Check that its server runs and can be reached, then try again.",
    )


def is_database_away(error: BaseException) -> bool:
    """Whether it passes when the database is well again."""
    return isinstance(error, _RAISED) and error.orig is not None and _is_away(error.orig)


def log_failure(log: logging.Logger, error: BaseException, text: str, *values: object) -> None:
    """One line for an outage, a traceback for a bug. Call it while ``error`` is handled."""
    known = outage(error)
    if known is None:
        log.exception(text, *values)
    else:
        log.error(f"{text}: %s", *values, known.message)


def _is_away(cause: BaseException) -> bool:
    if isinstance(cause, sqlite3.Error):
        # The lower byte is the code, the others its particulars.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_AWAY
    state = getattr(cause, "sqlstate", None)
    # What reached no server, or lost it, has no state.
    return state is None or state.startswith(_POSTGRES_AWAY)
