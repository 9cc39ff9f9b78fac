"""What goes wrong in processing, transform and tuning jobs, one entry each, beside those faults
that they share with training jobs.

``says`` are words that the FailureReason must hold; ``begun`` is what happens to a job once its
script has said ``begun``. ``slow`` ones run in `make chaos` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from catalogue import IGNORES_SIGTERM
from ridgeline_jobs import BUCKET
from ridgeline_processing import output, source
from ridgeline_tuning import SCRIPT

LOST = "lost-bucket"
"""A bucket that is deleted while a job runs whose output goes there."""

OUT = "/opt/ml/processing/out"
NOWHERE = "s3://no-such-bucket-at-all/out"


@dataclass(frozen=True)
class Fault:
    name: str
    says: tuple[str, ...] = ()
    status: str = "Failed"
    request: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False


@dataclass(frozen=True)
class ProcessingFault(Fault):
    script: str = "print('done')"
    begun: Literal["", "stop", "lose bucket"] = ""


@dataclass(frozen=True)
class TransformFault(Fault):
    """Through ``model``: one that doubles numbers, obeys words among them, and answers what it
    cannot read with a 500; or one whose input the framework's own functions read."""

    body: str = "1\n2\n"
    model: str = "doubles"


@dataclass(frozen=True)
class TuningFault(Fault):
    """The script has ``--width`` and ``--kind``, and finds the least loss."""

    script: str = SCRIPT


def out(uri: str) -> dict[str, Any]:
    return {"outputs": [output("out", OUT, uri)]}


WRITES = f"open('{OUT}/a.txt', 'w').write('1')"
WAITS = "import time; print('begun', flush=True); time.sleep(600)"
TORN_OUTPUT = f"""
import os
os.rmdir({OUT!r})
os.symlink(os.environ["SECRET_DIR"], {OUT!r})
"""
READS = """
def model_fn(model_dir):
    return 2.0


def predict_fn(data, model):
    return data * model
"""
JSON_LINES = {
    "input": {"ContentType": "application/jsonlines"},
    "output": {"Accept": "application/jsonlines"},
}
ONE_BY_ONE = {"BatchStrategy": "SingleRecord"}
NO_RETRIES = {**ONE_BY_ONE, "ModelClientConfig": {"InvocationsMaxRetries": 0}}
HAS_NO_KIND = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--width", type=float)
parser.parse_args()
"""

PROCESSING = (
    ProcessingFault(
        "no-script",
        ("AlgorithmError", "can't open file", "code/prepare.py", "LocalPath of the input"),
        request={"entrypoint": ["python3", "/opt/ml/processing/input/code/prepare.py"]},
    ),
    ProcessingFault(
        "no-program",
        ("/no/such/program", "ContainerEntrypoint"),
        request={"entrypoint": ["/no/such/program"]},
    ),
    ProcessingFault(
        "bad-import",
        ("No module named 'nothing_like_this'", "FrameworkProcessor"),
        script="import nothing_like_this",
    ),
    ProcessingFault(
        "no-input",
        ("ClientError", "no S3 objects found under", "'data'"),
        request={
            "inputs": [source("data", f"s3://{BUCKET}/faults/nothing/", "/opt/ml/processing/data")],
        },
    ),
    ProcessingFault(
        "no-output-bucket",
        ("ClientError", "S3Uri of output 'out'", "does not exist"),
        request=out(NOWHERE),
    ),
    ProcessingFault(
        "output-bucket-is-lost",
        ("ClientError", "The bucket of S3Uri of output 'out'", LOST, "does not exist"),
        script=f"{WRITES}; import time; print('begun', flush=True); time.sleep(3)",
        begun="lose bucket",
        request=out(f"s3://{LOST}/out"),
    ),
    ProcessingFault("writes-nothing", status="Completed", request=out(f"s3://{BUCKET}/empty")),
    ProcessingFault(
        "output-is-a-link",
        status="Completed",
        script=TORN_OUTPUT,
        request=out(f"s3://{BUCKET}/linked"),
    ),
    ProcessingFault(
        "takes-too-long",
        ("MaxRuntimeExceeded", "MaxRuntimeInSeconds, 1"),
        status="Stopped",
        script=WAITS,
        request={"StoppingCondition": {"MaxRuntimeInSeconds": 1}},
    ),
    ProcessingFault(
        "ignores-sigterm",
        status="Stopped",
        script=f"print('begun', flush=True)\n{IGNORES_SIGTERM}",
        begun="stop",
    ),
    ProcessingFault(
        "out-of-memory",
        ("MemoryError", "Each process of this job may use 0.2 GiB"),
        script="bytearray(1 << 30)",
        request={"Environment": {"RIDGELINE_MEMORY_MB": "256"}},
        slow=True,
    ),
)

TRANSFORM = (
    TransformFault(
        "no-model-data",
        ("ClientError", "Could not find model data at s3://", "models/data-gone"),
        model="data-gone",
    ),
    TransformFault(
        "cannot-load",
        ("AlgorithmError", "could not load the model", "the weights are torn"),
        request={"Environment": {"LOAD_FAILS": "1"}},
    ),
    TransformFault(
        "dies-at-load",
        ("AlgorithmError", "model server ended before it was ready (ExitCode 3)"),
        request={"Environment": {"LOAD_DIES": "1"}},
    ),
    TransformFault(
        "dies-of-a-record",
        ("model server ended", "again and again"),
        body="1\ndie\n",
        request=NO_RETRIES,
        slow=True,
    ),
    TransformFault(
        "record-too-large",
        ("ClientError", "record 2 has 1048577 bytes", "MaxPayloadInMB"),
        body=f"1\n{'2' * 1048576}\n",
        request={"MaxPayloadInMB": 1},
    ),
    TransformFault(
        "model-refuses",
        ("AlgorithmError", "Record 2 of s3://", "the model answered 500", "no number in refuse"),
        body="1\nrefuse\n",
        request=NO_RETRIES,
    ),
    TransformFault(
        "bad-json-line",
        ("ClientError", "Record 2 of s3://", "the model answered 400"),
        body="[1]\n[1\n",
        model="reads",
        request={
            **ONE_BY_ONE,
            "input": {"ContentType": "application/json"},
            "output": {"Accept": "application/json"},
        },
    ),
    TransformFault(
        "bad-csv-record",
        ("ClientError", "Record 2 of s3://", "the model answered 400"),
        body="1,2\n1,two\n",
        model="reads",
        request=ONE_BY_ONE,
        slow=True,
    ),
    TransformFault(
        "unknown-content-type",
        ("ClientError", "the model answered 415", "image/png"),
        model="reads",
        request={"input": {"ContentType": "image/png"}},
        slow=True,
    ),
    TransformFault(
        "filter-of-no-json",
        ("ClientError", "Record 1 of s3://", "no jsonlines"),
        body="one\n",
        request={**ONE_BY_ONE, **JSON_LINES, "DataProcessing": {"InputFilter": "$.x"}},
    ),
    TransformFault(
        "filter-finds-nothing",
        ("ClientError", "Record 2 of s3://", "$['x'] finds nothing"),
        body='{"x": 1}\n{"y": 1}\n',
        request={**ONE_BY_ONE, **JSON_LINES, "DataProcessing": {"InputFilter": "$.x"}},
    ),
    TransformFault(
        "no-input",
        ("ClientError", "no S3 objects found under"),
        request={"source": {"S3Uri": f"s3://{BUCKET}/faults/nothing/"}},
    ),
    TransformFault(
        "no-output-bucket",
        ("ClientError", "S3OutputPath", "does not exist"),
        request={"output": {"S3OutputPath": NOWHERE}},
    ),
)

TUNING = (
    TuningFault(
        "metric-never-printed",
        ("No objective metrics found after running 2 training jobs", "'loss'", "loss=([0-9.]+);"),
        script="print('Loss 0.5')",
    ),
    TuningFault(
        "metric-is-no-number",
        ("No objective metrics found", "finite numbers"),
        script="print('loss=1.2.3;')",
        slow=True,
    ),
    TuningFault(
        "all-jobs-fail",
        ("All training jobs failed", "RuntimeError: no data here"),
        script="raise RuntimeError('no data here')",
    ),
    TuningFault(
        "unknown-hyperparameter",
        ("All training jobs failed", "unrecognized arguments: --kind"),
        script=HAS_NO_KIND,
    ),
)


def continuous(low: str, high: str) -> dict[str, Any]:
    ranges = [{"Name": "width", "MinValue": low, "MaxValue": high}]
    return {"config": {"ParameterRanges": {"ContinuousParameterRanges": ranges}}}


NO_METRIC = {"Type": "Minimize", "MetricName": "accuracy"}

REFUSED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "Could not find model": ("transform", {"ModelName": "nobody"}),
    "is no JSONPath": ("transform", {"DataProcessing": {"InputFilter": "$["}}),
    "below /opt/ml/processing": ("processing", {"outputs": [output("x", "/etc", "s3://b/x")]}),
    "MinValue of hyperparameter 'width' is 3, which is more than its MaxValue 1": (
        "tuning",
        continuous("3", "1"),
    ),
    "which is not a number": ("tuning", continuous("low", "1")),
    "A metric is required": ("tuning", {"config": {"HyperParameterTuningJobObjective": NO_METRIC}}),
    "both static and tunable": ("tuning", {"static": {"width": json.dumps("0.5")}}),
}
"""What Create answers, by words of its message: the kind of job and changes of its request."""
