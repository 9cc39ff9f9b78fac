"""``ridgeline env``: what a shell needs so that AWS and OpenAI clients find this service."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml

from ridgeline.errors import NotRunning, Unavailable
from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir, is_of
from ridgeline_service.processes import ProcessId
from ridgeline_service.settings import Settings, load_settings
from ridgeline_service.supervisor.state import ServiceState, read_state

_PROXY_TIMEOUT_S = 20.0
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL",)
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


def env(
    proxy: Annotated[
        bool,
        typer.Option(
            "--proxy",
            help="Reach the service through a TLS proxy for AWS host names, for SDK calls that "
            "ignore AWS_ENDPOINT_URL: sagemaker's default_bucket() and get_execution_role().",
        ),
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Which service. [default: $RIDGELINE_HOME or ~/.ridgeline]"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print `export` lines for `eval "$(ridgeline env)"`. Nothing under your home is written."""
    directory = DataDir.find(data_dir)
    state = read_state(directory)
    if state is None or not directory.root_key.exists():
        named = (
            ""
            if directory == DataDir(Path.home() / ".ridgeline")
            else f" --data-dir {directory.root}"
        )
        raise NotRunning(
            f"No service runs on {directory.root}.",
            hint=f"Start it with `ridgeline up --detach{named}`.",
        )
    settings = load_settings(directory)
    variables = _variables(directory, settings, state)
    unset: tuple[str, ...] = _PROXY_VARIABLES
    if proxy:
        variables |= _proxy_variables(directory, state)
        for name in _ENDPOINT_VARIABLES:
            variables.pop(name)
        unset = _ENDPOINT_VARIABLES
    if json_output:
        sys.stdout.write(json.dumps(variables, indent=2) + "\n")
        return
    # A shell that was in the other mode before must not keep half of it.
    for name in unset:
        if (
            name in os.environ
            and (not proxy or name not in variables)
            and _is_ours(directory, name)
        ):
            sys.stdout.write(f"unset {name}\n")
    for name, value in variables.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def _is_ours(directory: DataDir, name: str) -> bool:
    """Whether the shell's value can only have come from this command."""
    value = os.environ[name]
    return name in _ENDPOINT_VARIABLES or "127.0.0.1" in value or str(directory.proxy) in value


def _variables(directory: DataDir, settings: Settings, state: ServiceState) -> dict[str, str]:
    key = json.loads(directory.root_key.read_text())
    region = settings.region
    config = directory.root / "sagemaker-config.yaml"
    write_atomic(config, yaml.safe_dump(_sdk_config(settings), sort_keys=False))
    return {
        "RIDGELINE_HOME": str(directory.root),
        "AWS_ENDPOINT_URL": state.url,
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "OPENAI_BASE_URL": f"{state.url}/v1",
        "OPENAI_API_KEY": key["api_key"],
        "RIDGELINE_ROLE_ARN": settings.role_arn,
    }


def _sdk_config(settings: Settings) -> dict[str, object]:
    """The configuration file that AWS's ``sagemaker`` SDKs read: bucket, the role of all that they
    start here, no telemetry."""
    role = settings.role_arn
    return {
        "SchemaVersion": "1.0",
        "SageMaker": {
            "PythonSDK": {
                "Modules": {
                    "Session": {"DefaultS3Bucket": settings.default_bucket},
                    "RemoteFunction": {"RoleArn": role},
                    "Serve": {"RoleArn": role},
                    "TelemetryOptOut": True,
                }
            },
            "Model": {"ExecutionRoleArn": role},
            "TrainingJob": {"RoleArn": role},
            "ProcessingJob": {"RoleArn": role},
            "CompilationJob": {"RoleArn": role},
        },
    }


def _proxy_variables(directory: DataDir, state: ServiceState) -> dict[str, str]:
    port = _running_proxy(directory) or _start_proxy(directory, state)
    bundle = str(directory.proxy / "ca-bundle.pem")
    url = f"http://127.0.0.1:{port}"
    return {
        "HTTPS_PROXY": url,
        "https_proxy": url,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "AWS_CA_BUNDLE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "SSL_CERT_FILE": bundle,
    }


def _running_proxy(directory: DataDir) -> int | None:
    try:
        raw = json.loads((directory.proxy / "state.json").read_text())
        alive = ProcessId(raw["pid"], raw["start_time"]).alive()
        return int(raw["port"]) if alive and is_of(raw, directory.root) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _start_proxy(directory: DataDir, state: ServiceState) -> int:
    """At the port of the last time if that is free: shells which have it need no new one."""
    directory.proxy.mkdir(mode=0o700, exist_ok=True)
    kept = directory.proxy / "port"
    for port in (*_kept_port(kept), 0):
        found = _proxy_at(port, directory, state)
        if found is not None:
            write_atomic(kept, str(found))
            return found
    raise Unavailable("The TLS proxy did not start.", hint=f"See {_proxy_log(directory)}.")


def _kept_port(path: Path) -> tuple[int, ...]:
    try:
        return (int(path.read_text()),)
    except (FileNotFoundError, ValueError):
        return ()


def _proxy_log(directory: DataDir) -> Path:
    return directory.logs / "proxy.log"


def _proxy_at(port: int, directory: DataDir, state: ServiceState) -> int | None:
    """The port of a new proxy, any free one for 0; None if it does not come up."""
    with _proxy_log(directory).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "ridgeline_service.gateway.connect_proxy"]
            + ["--data-dir", str(directory.root), "--gateway-url", state.url]
            + ["--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _PROXY_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        running = _running_proxy(directory)
        if running is not None:
            child.returncode = 0  # it lives on; `ridgeline down` ends it
            return running
        time.sleep(0.05)
    child.kill()
    child.wait()
    return None
