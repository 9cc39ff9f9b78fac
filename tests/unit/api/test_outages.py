"""A database that is away and a disk that is full are told as what they are, and can be retried."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError


def refused_connection() -> Exception:
    said = 'connection to server at "127.0.0.1", port 5432 failed:\n\tConnection refused'
    return OperationalError("SELECT 1", {}, Exception(said))


def of_sqlite(said: str, code: int) -> Exception:
    cause = sqlite3.OperationalError(said)
    cause.sqlite_errorcode = code
    return OperationalError("INSERT", {}, cause)


def of_postgres(said: str, state: str) -> Exception:
    cause = Exception(said)
    cause.sqlstate = state  # type: ignore[attr-defined]
    return OperationalError("SELECT 1", {}, cause)


OUTAGES = [
    (
        refused_connection(),
        'The database cannot be used: connection to server at "127.0.0.1", port',
    ),
    (
        of_sqlite("database is locked", sqlite3.SQLITE_BUSY_SNAPSHOT),
        "The database cannot be used: database is locked.",
    ),
    (
        of_postgres("the database system is shutting down", "57P03"),
        "The database cannot be used: the database system is shutting down.",
    ),
    (
        of_sqlite("database or disk is full", sqlite3.SQLITE_FULL),
        "No space left on device: free some in the data directory",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: free some in"),
]


class Failing(dict[str, Any]):
    """Rows and verbs that cannot be had."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def __iter__(self) -> Any:
        raise self._error

    def list(self, *_: Any, **__: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(("error", "said"), OUTAGES)
def test_an_aws_call(
    direct: Any, control: Any, monkeypatch: Any, caplog: Any, error: Exception, said: str
) -> None:
    monkeypatch.setattr(control.endpoints, "rows", Failing(error))
    answer = direct.call("ListEndpoints", {})
    assert (answer.status, answer.json["__type"]) == (503, "ServiceUnavailable")
    assert said in answer.json["message"]
    [line] = caplog.records
    assert said in line.getMessage()
    assert "\n" not in line.getMessage()
    assert line.exc_info is None


@pytest.mark.parametrize(("error", "said"), OUTAGES)
def test_a_call_of_ours(
    direct: Any, control: Any, monkeypatch: Any, caplog: Any, error: Exception, said: str
) -> None:
    monkeypatch.setattr(control, "keys", Failing(error))
    answer = direct.send("GET", "/api/keys", service="api")
    assert answer.status == 503
    assert answer.json["error"]["code"] == "ServiceUnavailable"
    assert said in answer.json["error"]["message"]
    [line] = caplog.records
    assert said in line.getMessage()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "broken"),
        of_sqlite("no such column: nonsense", sqlite3.SQLITE_ERROR),
        of_postgres("a row is too large", "54000"),
    ],
)
def test_another_error_of_the_system_is_a_bug_with_its_traceback(
    direct: Any, control: Any, monkeypatch: Any, caplog: Any, error: Exception
) -> None:
    monkeypatch.setattr(control, "keys", Failing(error))
    assert direct.send("GET", "/api/keys", service="api").status == 500
    assert "Traceback" in caplog.text
