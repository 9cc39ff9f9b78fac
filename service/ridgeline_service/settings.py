"""What the owner of a service may choose, kept in ``settings.json`` of the data directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace

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
    def default_bucket(self) -> str:
        """The bucket that SageMaker's SDKs use when the user names none."""
        return f"sagemaker-{self.region}-{self.account_id}"

    @property
    def zoo_bucket(self) -> str:
        """JumpStart's content bucket: zoo weights lie here once, for our deploys and AWS's SDK."""
        return f"jumpstart-cache-prod-{self.region}"

    def with_changes(self, **changes: object) -> Settings:
        return replace(self, **changes)  # type: ignore[arg-type]


def load_settings(data_dir: DataDir) -> Settings:
    """Read ``settings.json``; an absent file means defaults.

    Raises InvalidInput for an unknown or ill-typed field, naming it.
    """
    if not data_dir.settings.exists():
        return Settings()
    try:
        raw = json.loads(data_dir.settings.read_text())
    except ValueError as error:
        raise InvalidInput(f"{data_dir.settings} is not valid JSON: {error}") from None
    known = {field.name: type(field.default) for field in fields(Settings)}
    for name, value in raw.items():
        if name not in known:
            raise InvalidInput(
                f"{data_dir.settings}: unknown setting {name!r}", hint=did_you_mean(name, known)
            )
        if type(value) is not known[name]:
            raise InvalidInput(
                f"{data_dir.settings}: {name} must be of type {known[name].__name__}, got {value!r}"
            )
    return Settings(**raw)


def save_settings(data_dir: DataDir, settings: Settings) -> None:
    """Write only what differs from the defaults, so that better defaults reach old directories."""
    default = asdict(Settings())
    changed = {name: value for name, value in asdict(settings).items() if value != default[name]}
    write_atomic(data_dir.settings, json.dumps(changed, indent=2) + "\n", mode=0o600)
