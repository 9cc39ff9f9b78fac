"""What the environment tells the framework server. Knows variables and their defaults only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_PAYLOAD_MB = 100


@dataclass(frozen=True)
class HostingSettings:
    """One server's settings.

    ``workers`` is how many requests run in user code at once (SAGEMAKER_MODEL_SERVER_WORKERS).
    They are threads that share one model, where AWS's containers start processes with a model each;
    so the default is 1: code that AWS never calls twice at a time is not called so here.
    ``program`` is empty where SAGEMAKER_PROGRAM is set to the empty string: no user code.
    """

    port: int
    listen_fd: int | None
    replica_id: str
    token: str
    runtime: str
    model_dir: Path
    submit_directory: str
    program: str
    default_accept: str
    timeout_s: float
    workers: int
    max_payload_bytes: int
    threads: int | None
    task: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> HostingSettings:
        """Raises ValueError that names the variable, and KeyError for a missing replica id or
        token, which only the launcher sets."""

        def number(default: float, *names: str) -> float:
            for name in names:
                if text := environment.get(name, "").strip():
                    try:
                        value = float(text)
                    except ValueError:
                        raise ValueError(f"{name} must be a number, got {text!r}") from None
                    if value <= 0:
                        raise ValueError(f"{name} must be more than zero, got {text!r}")
                    return value
            return default

        listen = environment.get("RIDGELINE_LISTEN_FD", "")
        threads = environment.get("RIDGELINE_THREADS", "")
        timeout = ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "SAGEMAKER_MODEL_SERVER_TIMEOUT")
        return cls(
            port=int(environment.get("SAGEMAKER_BIND_TO_PORT") or 8080),
            listen_fd=int(listen) if listen else None,
            replica_id=environment["RIDGELINE_REPLICA_ID"],
            token=environment["RIDGELINE_REPLICA_TOKEN"],
            runtime=environment.get("RIDGELINE_RUNTIME", "pytorch-inference"),
            model_dir=Path(environment.get("RIDGELINE_MODEL_DIR") or "/opt/ml/model"),
            submit_directory=environment.get("SAGEMAKER_SUBMIT_DIRECTORY", ""),
            program=environment.get("SAGEMAKER_PROGRAM", "inference.py").strip(),
            default_accept=environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT")
            or "application/json",
            timeout_s=number(DEFAULT_TIMEOUT_S, *timeout),
            workers=max(1, int(number(1, "SAGEMAKER_MODEL_SERVER_WORKERS"))),
            max_payload_bytes=int(
                number(DEFAULT_MAX_PAYLOAD_MB, "SAGEMAKER_MAX_PAYLOAD_IN_MB") * 1024 * 1024
            ),
            threads=int(threads) if threads else None,
            task=environment.get("HF_TASK", ""),
        )

    @property
    def is_hugging_face(self) -> bool:
        return self.runtime.startswith("huggingface")

    @property
    def is_sklearn(self) -> bool:
        return self.runtime.startswith("sklearn")
