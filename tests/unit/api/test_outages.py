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


def full_database() -> Exception:
    cause = sqlite3.OperationalError("database or disk is full")
    cause.sqlite_errorcode = sqlite3.SQLITE_FULL
    return OperationalError("INSERT", {}, cause)


OUTAGES = [
    (
        refused_connection(),
        'The database cannot be used: connection to server at "127.0.0.1", port',
    ),
    (full_database(), "No space left on device: free some in the data directory"),
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


def test_another_error_of_the_system_is_a_bug_with_its_traceback(
    direct: Any, control: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(control, "keys", Failing(OSError(errno.EIO, "broken")))
    assert direct.send("GET", "/api/keys", service="api").status == 500
    assert "Traceback" in caplog.text
