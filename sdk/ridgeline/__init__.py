"""Ridgeline's client: deploy models and talk to them, on a service of your own or on AWS.

    from ridgeline import ZooModel

    predictor = ZooModel("smollm2-135m-instruct").deploy()
    print(predictor.chat("What is the capital of France?"))

Names are imported when they are first used, so that ``import ridgeline`` costs nothing: boto3
alone takes longer than the whole of ``ridgeline --help``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ridgeline import errors
from ridgeline.errors import DeployFailed, NotRunning, RidgelineError

if TYPE_CHECKING:
    from ridgeline.async_inference import AsyncInferenceConfig, AsyncResult, WaiterConfig
    from ridgeline.model import Model
    from ridgeline.predictor import Predictor
    from ridgeline.serverless import ServerlessInferenceConfig
    from ridgeline.session import Session
    from ridgeline.zoo import ZooModel

    __version__: str

_HOME = {
    "AsyncInferenceConfig": "async_inference",
    "AsyncResult": "async_inference",
    "Model": "model",
    "Predictor": "predictor",
    "ServerlessInferenceConfig": "serverless",
    "Session": "session",
    "WaiterConfig": "async_inference",
    "ZooModel": "zoo",
}

__all__ = [
    "AsyncInferenceConfig",
    "AsyncResult",
    "DeployFailed",
    "Model",
    "NotRunning",
    "Predictor",
    "RidgelineError",
    "ServerlessInferenceConfig",
    "Session",
    "WaiterConfig",
    "ZooModel",
    "__version__",
    "errors",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # reads files: only when somebody asks

        return version("ridgeline")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"ridgeline.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
