"""What the owner of a service may choose, kept in ``settings.json`` of the data directory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ridgeline.errors import InvalidInput, did_you_mean
from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir


@dataclass(frozen=True)
class Settings:
    """Settings of one service; every field has a working default.

    ``database_url`` empty means SQLite in the data directory; ``s3_endpoint`` empty means the
    embedded object store. ``max_instances`` caps the instances, of endpoints and of jobs, that run
    at once on this machine. A job that is stopped has ``job_stop_grace_s`` seconds between SIGTERM
    and SIGKILL.
    """

    region: str = "us-east-1"
    account_id: str = "123456789012"
    role_name: str = "RidgelineExecution"
    host: str = "127.0.0.1"
    port: int = 8080
    database_url: str = ""
    s3_endpoint: str = ""
    s3_access_key_id: str = ""
    s3_secret_access_key: str = ""
    max_instances: int = 16
    strict_instance_types: bool = False
    job_stop_grace_s: float = 120.0

    @property
    def role_arn(self) -> str:
        return f"arn:aws:iam::{self.account_id}:role/{self.role_name}"

    @property
    def role_id(self) -> str:
        """Stable, and of the form that IAM gives: AROA and 17 capitals."""
        digest = hashlib.sha256(self.role_arn.encode()).hexdigest().upper()
        return f"AROA{digest[:17]}"

    @property
    def default_bucket(self) -> str:
        """The bucket that SageMaker's SDKs use when the user names none."""
        return f"sagemaker-{self.region}-{self.account_id}"

    @property
    def zoo_bucket(self) -> str:
        """JumpStart's content bucket: zoo weights lie here once, for our deploys and AWS's SDK."""
        return f"jumpstart-cache-prod-{self.region}"

    def with_changes(self, **changes: object) -> Settings:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Rule:
    """What a setting may be, as a check and in words."""

    holds: Callable[[Any], bool]
    allowed: str


def _text(pattern: str, allowed: str) -> _Rule:
    return _Rule(lambda value: re.fullmatch(pattern, value) is not None, allowed)


def _number(least: float, most: float) -> _Rule:
    return _Rule(lambda value: least <= value <= most, f"from {least:g} to {most:g}")


_RULES = {
    "region": _text(r"[a-z0-9]+(-[a-z0-9]+)*", "a region's name, such as us-east-1"),
    "account_id": _text(r"[0-9]{12}", "12 digits"),
    "role_name": _text(r"[\w+=,.@-]{1,64}", "up to 64 letters, digits or characters of +=,.@-_"),
    "host": _text(r"\S+", "an address to listen on, such as 127.0.0.1"),
    "port": _number(0, 65535),
    "database_url": _text(
        # A relative path is another file wherever the service is started from.
        r"|sqlite:////.+|postgres(ql)?(\+psycopg)?://.+",
        "empty, sqlite:////ABSOLUTE/PATH or postgresql://USER:PASSWORD@HOST/DATABASE",
    ),
    "s3_endpoint": _text(r"|https?://[^\s/]+\S*", "empty or the http(s):// address of an S3"),
    "max_instances": _number(1, 10_000),
    "job_stop_grace_s": _number(0, 86_400),
}


def load_settings(data_dir: DataDir) -> Settings:
    """Read ``settings.json``; an absent file means defaults.

    Raises InvalidInput for a field that is unknown, of another type, or has a value that is not
    allowed, naming it.
    """
    if not data_dir.settings.exists():
        return Settings()
    try:
        raw = json.loads(data_dir.settings.read_text())
    except ValueError as error:
        raise InvalidInput(f"{data_dir.settings} is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidInput(
            f"{data_dir.settings} must hold a JSON object of settings.",
            hint='Such as {"port": 8080}. An absent file means the defaults.',
        )
    return Settings(**{name: _checked(data_dir, name, value) for name, value in raw.items()})


def _checked(data_dir: DataDir, name: str, value: Any) -> Any:
    known = {field.name: type(field.default) for field in fields(Settings)}
    if name not in known:
        raise InvalidInput(
            f"{data_dir.settings}: unknown setting {name!r}", hint=did_you_mean(name, known)
        )
    kind = known[name]
    # JSON knows one kind of numbers.
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise InvalidInput(
            f"{data_dir.settings}: {name} must be of type {kind.__name__}, got {value!r}"
        )
    rule = _RULES.get(name)
    if rule is not None and not rule.holds(value):
        shown = "what is there" if name == "database_url" else repr(value)
        raise InvalidInput(f"{data_dir.settings}: {name} must be {rule.allowed}, not {shown}.")
    return value


def save_settings(data_dir: DataDir, settings: Settings) -> None:
    """Write only what differs from the defaults, so that better defaults reach old directories."""
    default = asdict(Settings())
    changed = {name: value for name, value in asdict(settings).items() if value != default[name]}
    write_atomic(data_dir.settings, json.dumps(changed, indent=2) + "\n", mode=0o600)
