"""Everything that goes wrong in a user's job, one entry each: what the job is, and how it must end.

A fault is a script (or a submitted archive) with what the request says besides; ``says`` are words
that its FailureReason must hold, ``never`` words that it must not.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ridgeline_jobs import BUCKET


@dataclass(frozen=True)
class Fault:
    """``archive`` stands in for one that is made of ``script``. ``secondary`` is the last secondary
    status, where it is not the status. ``slow`` ones run in `make chaos` alone."""

    name: str
    script: str = "print('done')"
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    status: str = "Failed"
    secondary: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    archive: bytes | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False


def channel(name: str, uri: str, kind: str = "S3Prefix") -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": uri}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def linked(name: str, target: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return archive_of((info, b""))


ARGUMENTS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.parse_args()
"""
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
print("leaves a daemon behind")
"""
LINKED_FAILURE = """
import os, sys
os.symlink(os.environ["SECRET"], "/opt/ml/output/failure")
sys.exit(1)
"""
LINKED_MODEL = """
import os
os.rmdir("/opt/ml/model")
os.symlink(os.environ["SECRET_DIR"], "/opt/ml/model")
"""
IGNORES_SIGTERM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
while True:
    time.sleep(60)
"""
FILLS_TMP = """
import os, time
for number in range(12):
    file = os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(file, 0, 100 << 20)
time.sleep(60)
"""
SECOND_HOST = """
import os, time
if os.environ["SM_CURRENT_HOST"] == "algo-2":
    raise ValueError("the second shard is empty")
time.sleep(600)
"""
RANKS = """
import torch.distributed as dist
dist.init_process_group("gloo")
raise ValueError(f"rank {dist.get_rank()} has no data")
"""
SMALL = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
NO_NETWORK = """
import os, socket
host, port = os.environ["SERVICE"].rsplit(":", 1)
socket.create_connection((host, int(port)), timeout=5)
"""
TRAIN_DATA = {"InputDataConfig": [channel("train", f"s3://{BUCKET}/faults/data/")]}
OWN_START = {"sagemaker_program": "", "sagemaker_submit_directory": ""}

FAULTS = (
    Fault(
        "bad-import",
        "import nothing_like_this.inner",
        ("ModuleNotFoundError", "Add nothing_like_this to requirements.txt"),
    ),
    Fault(
        "no-signal",
        "import sys\nopen('/opt/ml/output/failure', 'w').write('no such fold')\nsys.exit(-1)",
        ("AlgorithmError: no such fold, ExitCode 255",),
    ),
    Fault(
        "missing-file",
        "open('/opt/ml/input/data/train/nope.csv')",
        ("FileNotFoundError", "Channel 'train' was downloaded and holds no such file"),
        request=TRAIN_DATA,
    ),
    Fault(
        "missing-channel",
        "open('/opt/ml/input/data/validation/a.csv')",
        ("The job has no channel 'validation'; its channels: train",),
        request=TRAIN_DATA,
    ),
    Fault(
        "out-of-memory",
        "numbers = bytearray(1 << 30)",
        ("MemoryError", "Each process of this job may use 0.2 GiB"),
        request={"Environment": {"RIDGELINE_MEMORY_MB": "256"}},
    ),
    Fault("killed", "import os; os.kill(os.getpid(), 9)", ("SIGKILL",)),
    Fault("crashed", "import os; os.kill(os.getpid(), 11)", ("SIGSEGV", "crash in native code")),
    Fault("exit-code", "import sys; sys.exit(3)", ("AlgorithmError", "ExitCode 3")),
    Fault("exit-words", "import sys; sys.exit('the labels are empty')", ("the labels are empty",)),
    Fault("reads-a-terminal", "input('Go on? ')", ("EOFError",)),
    Fault(
        "wrong-hyperparameter-type",
        ARGUMENTS,
        ("invalid int value: 'three'", "Hyperparameters become arguments"),
        request={"hyperparameters": {"epochs": '"three"'}},
    ),
    Fault(
        "unknown-hyperparameter",
        ARGUMENTS,
        ("unrecognized arguments: --epoch-count 3",),
        request={"hyperparameters": {"epoch-count": "3"}},
    ),
    Fault(
        "no-data",
        says=("ClientError", "no S3 objects found under", "channel 'train'"),
        request={"InputDataConfig": [channel("train", f"s3://{BUCKET}/faults/nothing/")]},
    ),
    Fault(
        "no-bucket",
        says=("ClientError", "s3://no-such-bucket-at-all"),
        request={"InputDataConfig": [channel("train", "s3://no-such-bucket-at-all/x/")]},
    ),
    Fault(
        "no-output-bucket",
        says=("ClientError", "S3OutputPath", "does not exist"),
        request={"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket-at-all/out"}},
    ),
    Fault(
        "bad-manifest",
        says=("ClientError", "manifest", "cannot be read"),
        request={
            "InputDataConfig": [
                channel("train", f"s3://{BUCKET}/faults/data/a.csv", "ManifestFile")
            ]
        },
    ),
    Fault(
        "file-and-folder",
        says=("ClientError", "is an object and a folder"),
        request={"InputDataConfig": [channel("train", f"s3://{BUCKET}/faults/both/")]},
    ),
    Fault("bad-archive", archive=b"no archive", says=("ClientError", "The submitted code")),
    Fault(
        "archive-leads-out",
        archive=archive_of((tarfile.TarInfo("../../evil.py"), b"print(1)")),
        says=("ClientError", "leads out of the folder"),
    ),
    Fault(
        "archive-links-out",
        archive=linked("train.py", "/etc/passwd"),
        says=("ClientError", "link"),
        never=("root:",),
    ),
    Fault(
        "no-script",
        archive=archive_of((tarfile.TarInfo("other.py"), b"print(1)")),
        says=("'train.py' is not in the submitted code", "other.py"),
    ),
    Fault(
        "no-code",
        says=("ClientError", "There is nothing at s3://"),
        request={
            "hyperparameters": {
                "sagemaker_submit_directory": json.dumps(f"s3://{BUCKET}/faults/no.tar.gz")
            }
        },
    ),
    Fault(
        "no-program",
        says=("ClientError", "names no program"),
        request={"hyperparameters": OWN_START},
    ),
    Fault(
        "no-entrypoint",
        says=("/no/such/program",),
        request={
            "hyperparameters": OWN_START,
            "algorithm": {"ContainerEntrypoint": ["/no/such/program"]},
        },
    ),
    Fault(
        "bad-requirements",
        files={"requirements.txt": "this is !! no requirement\n"},
        says=("ClientError", "requirements.txt could not be installed"),
    ),
    Fault(
        "distribution-not-here",
        says=("MPI", "torchrun"),
        request={"hyperparameters": {"sagemaker_mpi_enabled": "true"}},
    ),
    Fault(
        "says-why-itself",
        "import sys; open('/opt/ml/output/failure', 'w').write('row 7 is bad'); sys.exit(2)",
        ("AlgorithmError: row 7 is bad",),
    ),
    Fault("failure-is-a-link", LINKED_FAILURE, ("ExitCode 1",), never=("secret_access_key",)),
    Fault(
        "writes-too-much",
        "open('/tmp/x', 'wb').truncate(2 << 30)",
        ("VolumeSizeInGB",),
        request={"ResourceConfig": SMALL},
    ),
    Fault("fills-tmp", FILLS_TMP, ("VolumeSizeInGB",), request={"ResourceConfig": SMALL}),
    Fault(
        "ignores-sigterm",
        IGNORES_SIGTERM,
        status="Stopped",
        secondary="MaxRuntimeExceeded",
        request={"StoppingCondition": {"MaxRuntimeInSeconds": 1}},
    ),
    Fault(
        "requirements-that-do-not-resolve",
        files={"requirements.txt": "six==1.16.0\nsix==1.17.0\n"},
        says=("ClientError", "requirements.txt could not be installed", "six"),
    ),
    Fault(
        "second-host-fails",
        SECOND_HOST,
        ("ValueError: the second shard is empty",),
        request={"ResourceConfig": {**SMALL, "InstanceCount": 2}},
    ),
    Fault(
        "deletes-its-output",
        "import shutil; shutil.rmtree('/opt/ml/output'); raise ValueError('gone')",
        ("ValueError: gone",),
    ),
    Fault("closes-its-output", "import os; os.close(1); os.close(2); os._exit(5)", ("ExitCode 5",)),
    Fault(
        "failure-is-binary",
        "open('/opt/ml/output/failure', 'wb').write(b'bad \\xff\\x00 row'); raise SystemExit(1)",
        ("AlgorithmError: bad",),
    ),
    Fault(
        "a-rank-fails",
        RANKS,
        ("ValueError: rank 0 has no data",),
        request={"hyperparameters": {"sagemaker_torch_distributed_enabled": "true"}},
        slow=True,
    ),
    Fault(
        "no-network",
        NO_NETWORK,
        ("ConnectionRefusedError",),
        request={"EnableNetworkIsolation": True},
    ),
    Fault("model-is-a-link", LINKED_MODEL, status="Completed"),
    Fault("leaves-a-daemon", DAEMON, status="Completed"),
    Fault(
        "prints-binary",
        "import os, sys; sys.stdout.buffer.write(os.urandom(100_000))",
        status="Completed",
    ),
    Fault("prints-no-line-end", "print('x' * 3_000_000, end='')", status="Completed"),
    Fault(
        "loss-is-no-number",
        "print('loss=nan;'); print('loss=inf;')",
        status="Completed",
        request={"algorithm": {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*?);"}]}},
    ),
    Fault(
        "prints-100-mb", "for _ in range(100): print('y' * 999_999)", status="Completed", slow=True
    ),
)

REFUSED = {
    "No runtime is known": ({"TrainingImage": "1.dkr.ecr.us-east-1.amazonaws.com/mystery:1"}, {}),
    "it is an inference image": ({"TrainingImage": "r.com/pytorch-inference:2"}, {}),
    "Pipe mode": (
        {"TrainingInputMode": "Pipe"},
        {"InputDataConfig": [channel("train", f"s3://{BUCKET}/x")]},
    ),
    "regular expression": ({"MetricDefinitions": [{"Name": "a", "Regex": "(("}]}, {}),
    "has no group": ({"MetricDefinitions": [{"Name": "a", "Regex": "loss"}]}, {}),
    "no S3 URI": ({}, {"OutputDataConfig": {"S3OutputPath": "https://b/out"}}),
    "given twice": (
        {},
        {"InputDataConfig": [channel("a", f"s3://{BUCKET}/x"), channel("a", f"s3://{BUCKET}/y")]},
    ),
    "running instances": (
        {},
        {
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 999,
                "VolumeSizeInGB": 1,
            }
        },
    ),
}
"""What CreateTrainingJob answers, by words of its message: changes of the algorithm and others."""
