"""Errors of the zoo: part of the one tree in ``ridgeline.errors``, told apart by ``code``."""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidInput,
    NotFound,
    RidgelineError,
    Unavailable,
    Unsupported,
)


class UnknownModel(NotFound):
    """No card of that id."""

    code = "UnknownModel"


class CardInvalid(InvalidInput):
    """A card does not say what a card must say. ``problems`` holds one line per fault."""

    code = "CardInvalid"

    def __init__(self, origin: str, problems: Sequence[str]) -> None:
        self.origin = origin
        self.problems = tuple(problems)
        listed = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"the card {origin} is not valid:\n{listed}",
            hint="Correct the lines named above; the bundled cards are complete examples.",
        )


class BadSource(InvalidInput):
    """A source reference cannot be read (unknown scheme, missing part)."""

    code = "BadSource"


class SourceNotFound(NotFound):
    """The source is well formed, but nothing lies there (repository, revision, file)."""

    code = "SourceNotFound"


class SourceUnavailable(Unavailable):
    """The source could not be reached, or broke off too often; trying again helps."""

    code = "SourceUnavailable"


class GatedModel(AccessDenied):
    """The hub asks for a licence to be accepted, or for a token, before it hands the files out."""

    code = "GatedModel"


class UnsafeFile(InvalidInput):
    """A file of a kind that is never read from outside (pickles and the like)."""

    code = "UnsafeFile"


class UnsafeArchive(InvalidInput):
    """An archive holds an entry that would leave its folder, or is too large."""

    code = "UnsafeArchive"


class HashMismatch(RidgelineError):
    """A file is not the one that was recorded. Raised before anything is kept of it."""

    code = "HashMismatch"
    http_status = 422

    def __init__(self, file: str, *, expected: str, actual: str, recorded_in: str) -> None:
        self.file = file
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"{file} has sha256 {actual}, but {recorded_in} says {expected}",
            hint=(
                "The file changed at its source, or was damaged on the way. If the change is "
                "meant, remove the recorded hash and prepare the model again."
            ),
        )


class CannotConvert(Unsupported):
    """The files were read, but they hold something that no engine of ours can run."""

    code = "CannotConvert"


class OutputTaken(AlreadyExists):
    """The output folder holds something that the zoo did not put there."""

    code = "OutputTaken"


class OutputUnwritable(Unavailable):
    """The output folder cannot be written: no room, no right."""

    code = "OutputUnwritable"


__all__ = [
    "BadSource",
    "CannotConvert",
    "CardInvalid",
    "GatedModel",
    "HashMismatch",
    "OutputTaken",
    "OutputUnwritable",
    "SourceNotFound",
    "SourceUnavailable",
    "UnknownModel",
    "UnsafeArchive",
    "UnsafeFile",
]
