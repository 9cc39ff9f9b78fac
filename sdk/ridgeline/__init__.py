"""Ridgeline's client: train models, deploy them, talk to them, on your own service or on AWS.

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
from ridgeline.errors import (
    DeployFailed,
    NotRunning,
    ProcessingFailed,
    RidgelineError,
    TrainingFailed,
    TransformFailed,
    TuningFailed,
)

if TYPE_CHECKING:
    from ridgeline.async_inference import AsyncInferenceConfig, AsyncResult, WaiterConfig
    from ridgeline.estimator import Estimator
    from ridgeline.frameworks import HuggingFace, PyTorch, SKLearn
    from ridgeline.inputs import TrainingInput
    from ridgeline.model import Model
    from ridgeline.parameter import (
        CategoricalParameter,
        ContinuousParameter,
        IntegerParameter,
    )
    from ridgeline.predictor import Predictor
    from ridgeline.processing import (
        NetworkConfig,
        ProcessingInput,
        ProcessingOutput,
        Processor,
        ScriptProcessor,
        SKLearnProcessor,
    )
    from ridgeline.processing_job import ProcessingJob
    from ridgeline.serverless import ServerlessInferenceConfig
    from ridgeline.session import Session
    from ridgeline.training_job import TrainingJob
    from ridgeline.transform_job import TransformJob
    from ridgeline.transformer import Transformer
    from ridgeline.tuner import HyperparameterTuner, WarmStartConfig, WarmStartTypes
    from ridgeline.tuning_job import TuningJob
    from ridgeline.zoo import ZooModel
    from ridgeline.zoo_estimator import ZooEstimator

    __version__: str

_HOME = {
    "AsyncInferenceConfig": "async_inference",
    "AsyncResult": "async_inference",
    "CategoricalParameter": "parameter",
    "ContinuousParameter": "parameter",
    "Estimator": "estimator",
    "HuggingFace": "frameworks",
    "HyperparameterTuner": "tuner",
    "IntegerParameter": "parameter",
    "Model": "model",
    "OwnModel": "own_model",
    "NetworkConfig": "processing",
    "Predictor": "predictor",
    "ProcessingInput": "processing",
    "ProcessingJob": "processing_job",
    "ProcessingOutput": "processing",
    "Processor": "processing",
    "PyTorch": "frameworks",
    "SKLearn": "frameworks",
    "SKLearnProcessor": "processing",
    "ScriptProcessor": "processing",
    "ServerlessInferenceConfig": "serverless",
    "Session": "session",
    "TrainingInput": "inputs",
    "TrainingJob": "training_job",
    "TransformJob": "transform_job",
    "Transformer": "transformer",
    "TuningJob": "tuning_job",
    "WaiterConfig": "async_inference",
    "WarmStartConfig": "tuner",
    "WarmStartTypes": "tuner",
    "ZooEstimator": "zoo_estimator",
    "ZooModel": "zoo",
}

__all__ = [
    "AsyncInferenceConfig",
    "AsyncResult",
    "CategoricalParameter",
    "ContinuousParameter",
    "DeployFailed",
    "Estimator",
    "HuggingFace",
    "HyperparameterTuner",
    "IntegerParameter",
    "Model",
    "NetworkConfig",
    "NotRunning",
    "OwnModel",
    "Predictor",
    "ProcessingFailed",
    "ProcessingInput",
    "ProcessingJob",
    "ProcessingOutput",
    "Processor",
    "PyTorch",
    "RidgelineError",
    "SKLearn",
    "SKLearnProcessor",
    "ScriptProcessor",
    "ServerlessInferenceConfig",
    "Session",
    "TrainingFailed",
    "TrainingInput",
    "TrainingJob",
    "TransformFailed",
    "TransformJob",
    "Transformer",
    "TuningFailed",
    "TuningJob",
    "WaiterConfig",
    "WarmStartConfig",
    "WarmStartTypes",
    "ZooEstimator",
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
