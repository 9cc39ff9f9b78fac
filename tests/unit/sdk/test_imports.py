"""The client stays light: what importing it loads, and what it offers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import ridgeline

HEAVY = {
    "aiohttp", "alembic", "fastapi", "numpy", "pydantic", "ray", "safetensors", "sqlalchemy",
    "starlette", "tokenizers", "torch", "transformers", "uvicorn", "yaml",
    "ridgeline_service", "ridgeline_backends", "ridgeline_zoo",
}  # fmt: skip


def loaded_by(statement: str) -> tuple[set[str], float]:
    """Modules that a fresh interpreter loads for this statement, and the seconds it takes."""
    script = (
        "import sys, time, json; before = set(sys.modules); start = time.perf_counter();"
        f"{statement}; took = time.perf_counter() - start;"
        "print(json.dumps([sorted(set(sys.modules) - before), took]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    modules, seconds = json.loads(done.stdout)
    return set(modules), seconds


def outside(modules: set[str]) -> set[str]:
    """Top-level packages of ``modules`` that Python does not bring."""
    return {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)


def test_importing_the_package_loads_nothing_but_itself() -> None:
    modules, _ = loaded_by("import ridgeline")
    assert outside(modules) == {"ridgeline"}
    assert {name for name in modules if name.startswith("ridgeline")} == {
        "ridgeline",
        "ridgeline.errors",
    }


def test_importing_the_package_takes_less_than_half_a_second() -> None:
    assert min(loaded_by("import ridgeline")[1] for _ in range(3)) < 0.5


def test_importing_every_name_loads_the_client_s_dependencies_alone() -> None:
    modules, _ = loaded_by("from ridgeline import *")
    assert outside(modules) - {"_virtualenv", "__mp_main__"} <= {
        "boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3", "certifi",
        "charset_normalizer", "idna", "rich", "ridgeline", "awscrt", "brotli", "zstandard",
        "backports", "h2", "socks",
    }  # fmt: skip
    assert not outside(modules) & HEAVY


@pytest.mark.parametrize("module", ["ridgeline.cli.app", "ridgeline.errors"])
def test_the_command_line_answers_help_without_boto3(module: str) -> None:
    modules, _ = loaded_by(f"import {module}")
    assert not outside(modules) & (HEAVY | {"boto3", "botocore"})


def test_the_names_offered_are_these() -> None:
    assert ridgeline.__all__ == [
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


@pytest.mark.parametrize("name", ridgeline.__all__)
def test_every_name_offered_is_there(name: str) -> None:
    assert getattr(ridgeline, name) is not None
    assert name in dir(ridgeline)


def test_a_name_that_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Estimatr"):
        ridgeline.Estimatr  # noqa: B018
