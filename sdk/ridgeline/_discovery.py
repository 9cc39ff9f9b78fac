"""Where the service is, and with which keys it is spoken to.

The order: explicit arguments; a data directory that was named; ``AWS_ENDPOINT_URL`` with the keys
of the environment; ``$RIDGELINE_HOME``; ``~/.ridgeline``. The first that is *given* decides: a
named directory without a running service is an error, never a reason to look further, because
the next place might be somebody else's service.

A directory's service brings its own keys. AWS keys of the environment are not read on that path,
so they cannot be sent to it. Knows files and environment; opens no connection, imports no boto3.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.errors import AccessDenied, InvalidInput, NotRunning, RidgelineError

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Keys:
    """One pair of keys, with the token of temporary AWS credentials where there is one."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Address:
    """A service that was found. ``data_dir`` is set if a directory told us of it."""

    url: str
    region: str
    keys: Keys
    found_by: str
    data_dir: Path | None = None

    def start_hint(self) -> str:
        """What to do if nothing answers at ``url``."""
        if self.data_dir is not None:
            return up_hint(self.data_dir)
        return f"Check the address ({self.found_by}), or start a service with `ridgeline up`."

    def silent_hint(self) -> str:
        """Where to look if the service is there and does not answer."""
        if self.data_dir is not None:
            return f"Its log may say why: {self.data_dir / 'logs' / 'control.log'}"
        return "Its log may say why: logs/control.log in the data directory of the service."


def find_service(
    *,
    endpoint_url: str | None = None,
    keys: Keys | None = None,
    region: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> Address:
    """The service that these arguments and this environment mean.

    Raises InvalidInput for arguments that contradict each other, NotRunning if the directory has
    no running service, AccessDenied if keys are missing or may not be read.
    """
    env = os.environ if environ is None else environ
    if endpoint_url is not None or keys is not None:
        return _explicit(endpoint_url, keys, region, data_dir, env)
    if data_dir is not None:
        return read_directory(Path(data_dir), found_by="the data directory named", region=region)
    if env.get("AWS_ENDPOINT_URL"):
        return _environment(env, region)
    if env.get("RIDGELINE_HOME"):
        return read_directory(
            Path(env["RIDGELINE_HOME"]), found_by="$RIDGELINE_HOME", region=region
        )
    default = (home or Path.home()) / ".ridgeline"
    return read_directory(default, found_by="the default data directory", region=region)


def read_directory(path: Path, *, found_by: str, region: str | None = None) -> Address:
    """The service of one data directory, from the files that ``ridgeline up`` writes there."""
    root = path.expanduser().absolute()
    none_runs = NotRunning(
        f"No Ridgeline service is running in {root} ({found_by}).", hint=up_hint(root)
    )
    running = _read_json(root / "run" / "supervisor.json", missing=none_runs)
    if _is_of_another(running, root):
        raise none_runs
    key = _read_json(
        root / "root-key.json",
        missing=AccessDenied(
            f"{root / 'root-key.json'} is missing, so there is no key for the service in {root}.",
            hint="Restart it with `ridgeline down` and `ridgeline up`.",
        ),
    )
    settings = _read_json(root / "settings.json", missing=None)
    return Address(
        url=_member(running, "url", root / "run" / "supervisor.json"),
        region=region or str(settings.get("region") or DEFAULT_REGION),
        keys=Keys(
            _member(key, "access_key_id", root / "root-key.json"),
            _member(key, "secret_access_key", root / "root-key.json"),
        ),
        found_by=found_by,
        data_dir=root,
    )


def up_hint(root: Path) -> str:
    """The command that starts the service of this directory."""
    if root == Path.home() / ".ridgeline":
        return "Start it with `ridgeline up`."
    return f"Start it with `ridgeline up --data-dir {root}`."


def _explicit(
    endpoint_url: str | None,
    keys: Keys | None,
    region: str | None,
    data_dir: str | os.PathLike[str] | None,
    env: Mapping[str, str],
) -> Address:
    if data_dir is not None:
        raise InvalidInput(
            "endpoint_url and data_dir name two services.", hint="Give one of the two."
        )
    if endpoint_url is None or keys is None:
        missing = "endpoint_url" if endpoint_url is None else "access_key_id and secret_access_key"
        raise InvalidInput(
            f"{missing} must be given as well.",
            hint="An address needs keys and keys need an address; keys of the environment are "
            "only used with AWS_ENDPOINT_URL.",
        )
    return Address(endpoint_url, region or _region(env), keys, found_by="the endpoint_url given")


def _environment(env: Mapping[str, str], region: str | None) -> Address:
    access, secret = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        raise AccessDenied(
            "AWS_ENDPOINT_URL is set, but AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not.",
            hint='`eval "$(ridgeline env)"` sets all three; unset AWS_ENDPOINT_URL to use the '
            "service of a data directory.",
        )
    return Address(
        env["AWS_ENDPOINT_URL"],
        region or _region(env),
        Keys(access, secret, env.get("AWS_SESSION_TOKEN") or None),
        found_by="AWS_ENDPOINT_URL",
    )


def _region(env: Mapping[str, str]) -> str:
    return env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or DEFAULT_REGION


def _read_json(path: Path, *, missing: RidgelineError | None) -> dict[str, object]:
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        if missing is not None:
            raise missing from None
        return {}
    except PermissionError:
        raise AccessDenied(
            f"{path} may not be read by this user.",
            hint="The data directory belongs to another user; ask its owner for keys "
            "(`ridgeline keys create`) and use AWS_ENDPOINT_URL.",
        ) from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} must hold a JSON object.")
    return value


def _is_of_another(running: Mapping[str, object], root: Path) -> bool:
    """Whether this is a copy of the directory of a service. One that was moved is none: it is
    known by its device and inode."""
    found = root.stat()
    return running.get("place") not in (None, f"{found.st_dev}:{found.st_ino}")


def _member(value: Mapping[str, object], name: str, path: Path) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not found:
        raise InvalidInput(f"{path} has no {name!r}.", hint="Restart the service to rewrite it.")
    return found
