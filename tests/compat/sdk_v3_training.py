"""AWS's sagemaker SDK v3, unmodified: ModelTrainer with a script, a command, torchrun and what
TensorBoard shows, and sagemaker-core's TrainingJob."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path

import boto3
from sagemaker.core.resources import TrainingJob
from sagemaker.core.shapes import (
    AlgorithmSpecification,
    OutputDataConfig,
    ResourceConfig,
    StoppingCondition,
)
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode, TensorBoardOutputConfig
from sagemaker.train.distributed import MPI, Torchrun

IMAGE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/"
    "pytorch-training:2.8.0-cpu-py312-ubuntu22.04-sagemaker"
)
TRAIN = """
import argparse, json, os
from pathlib import Path

import emoji
import helper

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--name", required=True)
args = parser.parse_args()
if args.epochs > 9:
    raise ValueError(f"{args.epochs} epochs are too many")
rows = (Path(os.environ["SM_CHANNEL_TRAIN"]) / "d.csv").read_text().split()
result = {"name": args.name, "epochs": args.epochs, "rows": len(rows), "helper": helper.VALUE}
result |= {"hps": json.loads(os.environ["SM_HPS"]), "said": emoji.emojize(":check_mark_button:")}
(Path(os.environ["SM_MODEL_DIR"]) / "model.json").write_text(json.dumps(result))
"""
DDP = """
import json, os
from pathlib import Path

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
number = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(number)
if dist.get_rank() == 0:
    result = json.dumps([dist.get_world_size(), number.item()])
    Path(os.environ["SM_MODEL_DIR"], "model.json").write_text(result)
dist.destroy_process_group()
"""
COMMAND = "python -c \"open('/opt/ml/model/model.json', 'w').write('$WORD')\""


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "code").mkdir()
        (folder / "code" / "train.py").write_text(TRAIN)
        (folder / "code" / "ddp.py").write_text(DDP)
        (folder / "code" / "helper.py").write_text("VALUE = 42")
        (folder / "code" / "requirements.txt").write_text("emoji\n")
        (folder / "data").mkdir()
        (folder / "data" / "d.csv").write_text("1\n2\n3\n")
        script(folder)
        failure(folder)
        torchrun(folder)
        mpi(folder)
        command()
    tensorboard()
    core()
    return 0


def script(folder: Path) -> None:
    source = SourceCode(
        source_dir=str(folder / "code"), entry_script="train.py", requirements="requirements.txt"
    )
    trained = trainer(source, hyperparameters={"epochs": 2, "name": "a b"})
    local = InputData(channel_name="train", data_source=str(folder / "data"))
    trained.train(input_data_config=[local], wait=True, logs=True)
    result = model_of(trained)
    hps = result.pop("hps")
    assert hps == {"epochs": 2, "name": "a b"}, hps
    assert result == {"name": "a b", "epochs": 2, "rows": 3, "helper": 42, "said": "✅"}, result
    print("ModelTrainer with a script, its requirements and data: trained")


def failure(folder: Path) -> None:
    source = SourceCode(
        source_dir=str(folder / "code"), entry_script="train.py", requirements="requirements.txt"
    )
    failing = trainer(source, hyperparameters={"epochs": 10, "name": "a"})
    local = InputData(channel_name="train", data_source=str(folder / "data"))
    said = ""
    try:
        failing.train(input_data_config=[local], wait=True, logs=False)
    except FailedStatusError as error:
        said = str(error)
    assert "ValueError: 10 epochs are too many" in said, said
    print("ModelTrainer: a failure told with its cause")


def torchrun(folder: Path) -> None:
    # All at the same time: jobs share this machine's ports.
    started = []
    for count, expected in ((1, [2, 3.0]), (1, [2, 3.0]), (2, [4, 10.0])):
        trained = trainer(
            SourceCode(source_dir=str(folder / "code"), entry_script="ddp.py"),
            distributed=Torchrun(process_count_per_node=2),
            instances=count,
        )
        trained.train(wait=False)
        started.append((trained, expected))
    for trained, expected in started:
        trained._latest_training_job.wait(logs=True)
        assert model_of(trained) == expected, model_of(trained)
    print("ModelTrainer with torchrun, two processes on one and on two instances, at once: trained")


def mpi(folder: Path) -> None:
    source = SourceCode(source_dir=str(folder / "code"), entry_script="ddp.py")
    said = ""
    try:
        trainer(source, distributed=MPI(process_count_per_node=2)).train(logs=False)
    except FailedStatusError as error:
        said = str(error)
    assert "MPI does not run here. Use distributed=Torchrun()" in said, said
    print("ModelTrainer with MPI: refused with what to use instead")


def tensorboard() -> None:
    trained = trainer(SourceCode(command="echo 7 > /opt/ml/output/tensorboard/events.1"))
    trained.with_tensorboard_output_config(TensorBoardOutputConfig()).train(logs=False)
    job = trained._latest_training_job
    where = f"{job.tensor_board_output_config.s3_output_path}/{job.training_job_name}"
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    key = f"{prefix}/tensorboard-output/events.1"
    assert boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == b"7\n"
    print("ModelTrainer with TensorBoardOutputConfig: its files are in S3")


def command() -> None:
    trained = trainer(SourceCode(command=COMMAND), environment={"WORD": "7"})
    trained.train(wait=True, logs=False)
    assert model_of(trained) == 7
    print("ModelTrainer with a command: trained")


def trainer(
    source: SourceCode,
    *,
    instances: int = 1,
    **options: object,
) -> ModelTrainer:
    # Without the proxy the SDK asks AWS for its default role.
    role = {"role": os.environ["RIDGELINE_ROLE_ARN"]} if "AWS_ENDPOINT_URL" in os.environ else {}
    return ModelTrainer(
        training_image=IMAGE,
        source_code=source,
        compute=Compute(instance_type="ml.m5.large", instance_count=instances),
        base_job_name="compat-v3",
        **role,
        **options,
    )


def model_of(trained: ModelTrainer) -> object:
    job = trained._latest_training_job
    assert job.training_job_status == "Completed", job.failure_reason
    return json.loads(downloaded(job.model_artifacts.s3_model_artifacts)["model.json"])


def core() -> None:
    name = f"core-{uuid.uuid4().hex[:8]}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=name)
    job = TrainingJob.create(
        training_job_name=name,
        role_arn=os.environ["RIDGELINE_ROLE_ARN"],
        algorithm_specification=AlgorithmSpecification(
            training_image=IMAGE,
            training_input_mode="File",
            container_entrypoint=["/bin/sh", "-c", "cp /opt/ml/input/config/*.json /opt/ml/model"],
        ),
        hyper_parameters={"nonce": "x"},
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{name}/out"),
        resource_config=ResourceConfig(
            instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5
        ),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600),
    )
    job.wait(logs=True)
    job.refresh()
    assert job.training_job_status == "Completed", job.failure_reason
    assert job.secondary_status_transitions[-1].status == "Completed"
    found = downloaded(job.model_artifacts.s3_model_artifacts)
    assert json.loads(found["hyperparameters.json"]) == {"nonce": "x"}
    listed = TrainingJob.get_all(name_contains=name, status_equals="Completed")
    assert [each.training_job_name for each in listed] == [name]
    assert TrainingJob.get(name).training_job_arn == job.training_job_arn
    job.delete()
    assert list(TrainingJob.get_all(name_contains=name)) == []
    print("sagemaker-core TrainingJob: created, waited for, listed, deleted")


def downloaded(uri: str) -> dict[str, bytes]:
    """The files of an archive."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


if __name__ == "__main__":
    sys.exit(main())
