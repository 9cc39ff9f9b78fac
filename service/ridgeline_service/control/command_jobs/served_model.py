"""The model that recommendations are wanted for, as its files say: its sizes and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ridgeline_service.control.command_jobs.archives import files_of
from ridgeline_service.control.command_jobs.life import CommandFailed
from ridgeline_service.objects.reading import S3Failed, S3Reader

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_FILES = (CONFIG, TOKENIZER)


@dataclass(frozen=True)
class ServedModel:
    """``tokenizer``: the text of its tokenizer.json; empty without one."""

    config: Mapping[str, object]
    tokenizer: str = ""

    def count(self) -> Callable[[str], int] | None:
        """How many tokens a text is. Raises CommandFailed."""
        if not self.tokenizer:
            return None
        # A library of its own, which jobs without a sample do without.
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_str(self.tokenizer)
        # The library raises bare Exception for every fault of the file.
        except Exception as error:  # noqa: BLE001
            raise CommandFailed(f"ClientError: {TOKENIZER} cannot be read: {error}") from None
        return lambda text: len(found.encode(text).ids)


def read_model(reader: S3Reader, uri: str, check: Callable[[], None]) -> ServedModel:
    """From the files at a prefix or in an archive; without a config, where there is none. What
    ``check`` raises ends the reading. Raises S3Failed and CommandFailed."""
    found = _packed if uri.endswith((".tar.gz", ".tgz")) else _lying
    files = found(reader, uri, check)
    try:
        config = json.loads(files.get(CONFIG, b"{}"))
    except ValueError as error:
        raise CommandFailed(f"ClientError: the {CONFIG} of {uri} is no JSON.") from error
    if not isinstance(config, dict):
        raise CommandFailed(f"ClientError: the {CONFIG} of {uri} must hold a JSON object.")
    return ServedModel(config, files.get(TOKENIZER, b"").decode(errors="replace"))


def _packed(reader: S3Reader, uri: str, check: Callable[[], None]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, file in files_of(reader, uri, "a model", check):
        if name in _FILES:
            found.setdefault(name, file.read())
    return found


def _lying(reader: S3Reader, uri: str, check: Callable[[], None]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in _FILES:
        check()
        try:
            found[name] = reader.read(f"{uri.rstrip('/')}/{name}")
        except S3Failed as error:
            if not error.absent:
                raise
    return found
