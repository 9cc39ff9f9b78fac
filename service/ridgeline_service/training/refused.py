"""Files that S3 does not take, and links that lead to none: told by name when all others are there.

One file that cannot be stored, such as one whose name is no text, must not keep the others away.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ridgeline_service.endings import shortened
from ridgeline_service.objects.reading import S3Failed
from ridgeline_service.training.causes import Cause, JobFailed

_NAMED, _LENGTH = 3, 120
_BAD_NAME = "its name is not UTF-8, and names in S3 are"
_HINT = "Have the script give such files other names, and copy what such links point to."


class Refused:
    """Those of one folder, with the reason of each."""

    def __init__(self) -> None:
        self._why: dict[str, str] = {}

    def take(self) -> set[str]:
        """Their paths; none is refused any more, for whoever tries again."""
        paths, self._why = set(self._why), {}
        return paths

    def put(self, path: str, upload: Callable[[], None]) -> bool:
        """Whether the file was stored. Raises S3Failed for what is no fault of this file."""
        self._why.pop(path, None)
        if not _is_text(path):
            self._why[path] = _BAD_NAME
            return False
        try:
            upload()
        except S3Failed as error:
            if not error.of_request:
                raise
            self._why[path] = error.message
            return False
        return True

    def leave_out(self, path: str, why: str) -> None:
        """There is nothing to store."""
        self._why[path] = why

    def failure(self, what: str, uri: str) -> JobFailed | None:
        """Why the job fails for them; None without any. ``what`` stands before "could not"."""
        if not self._why:
            return None
        found = sorted(self._why.items())
        named = "; ".join(
            f"{shortened(shown(path), _LENGTH)} ({shortened(shown(why), _LENGTH)})"
            for path, why in found[:_NAMED]
        )
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        message = f"{what} could not be uploaded to {uri} as a whole: {named}{more}."
        return JobFailed(Cause.UPLOAD_FAILED, message, hint=_HINT)


def shown(path: str) -> str:
    """A path of whatever bytes as text of one line: what is no text is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
