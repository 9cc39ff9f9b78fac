"""boto3 compiles models for simulated Neuron devices, and asks which instance to take."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from random_models import save_random
from ridgeline_testing import Service
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.e2e
ROLE = "arn:aws:iam::000000000000:role/compiles"


def ended(describe: Any, status: str, **name: str) -> dict[str, Any]:
    """The job once it is over."""
    for _ in range(600):
        found: dict[str, Any] = describe(**name)
        if found[status] in ("COMPLETED", "FAILED", "STOPPED"):
            return found
        time.sleep(0.2)
    raise AssertionError(f"{name} goes on and on: {found}")


def archive_of(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return packed.getvalue()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    save_random(LlamaForCausalLM, config, folder)
    return archive_of(folder)


def test_a_model_archive_becomes_a_compiled_one(service: Service, llama: bytes) -> None:
    sagemaker, s3 = service.client("sagemaker"), service.client("s3")
    s3.create_bucket(Bucket="compiles")
    s3.put_object(Bucket="compiles", Key="in/model.tar.gz", Body=llama)
    output = {"S3OutputLocation": "s3://compiles/out/", "TargetDevice": "ml_inf2"}

    def create(name: str, key: str, **more: str) -> None:
        sagemaker.create_compilation_job(
            CompilationJobName=name,
            RoleArn=ROLE,
            InputConfig={
                "S3Uri": f"s3://compiles/in/{key}",
                "DataInputConfig": '{"input_ids": [1, 128]}',
                "Framework": "PYTORCH",
            },
            OutputConfig={**output, **more},
            StoppingCondition={"MaxRuntimeInSeconds": 300},
        )

    create("compiled", "model.tar.gz")
    waiter = sagemaker.describe_compilation_job
    job = ended(waiter, "CompilationJobStatus", CompilationJobName="compiled")
    assert job["CompilationJobStatus"] == "COMPLETED", job["FailureReason"]
    uri = "s3://compiles/out/model-ml_inf2.tar.gz"
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": uri}
    assert job["DerivedInformation"] == {"DerivedDataInputConfig": '{"input_ids": [1, 128]}'}
    assert job["CompilationStartTime"] <= job["CompilationEndTime"]
    assert "neuronx" in job["InferenceImage"]
    body = s3.get_object(Bucket="compiles", Key="out/model-ml_inf2.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = archive.getnames()
    assert {"./config.json", "./neuron/compiled.json"} <= set(names)
    with pytest.raises(sagemaker.exceptions.ClientError, match="Choose one of: 1, 2, 4, 8, 24"):
        create("impossible", "model.tar.gz", CompilerOptions='{"tp_degree": 3}')
    create("long", "model.tar.gz", CompilerOptions='{"seq_len": 512}')
    job = ended(waiter, "CompilationJobStatus", CompilationJobName="long")
    assert job["CompilationJobStatus"] == "FAILED"
    assert "seq_len 512 is above the model's context length 256." in job["FailureReason"]
    create("unkept", "model.tar.gz", S3OutputLocation="s3://nobodys-bucket/out")
    job = ended(waiter, "CompilationJobStatus", CompilationJobName="unkept")
    assert job["FailureReason"] == "ClientError: There is no bucket 'nobodys-bucket'."
    create("newer", "model.tar.gz", TargetDevice="ml_trn2")
    job = ended(waiter, "CompilationJobStatus", CompilationJobName="newer")
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://compiles/out/model-ml_trn2.tar.gz"
    assert job["OutputConfig"]["TargetDevice"] == "ml_trn2"
    with pytest.raises(sagemaker.exceptions.ClientError, match="Targets: ml_inf2"):
        create("nowhere", "model.tar.gz", TargetDevice="ml_m99")
    create("absent", "nothing.tar.gz")
    job = ended(waiter, "CompilationJobStatus", CompilationJobName="absent")
    assert "There is nothing at s3://compiles/in/nothing.tar.gz" in job["FailureReason"]
    listed = sagemaker.list_compilation_jobs(StatusEquals="COMPLETED")["CompilationJobSummaries"]
    targets = {one["CompilationJobName"]: one["CompilationTargetDevice"] for one in listed}
    assert targets == {"compiled": "ml_inf2", "newer": "ml_trn2"}
    with pytest.raises(sagemaker.exceptions.ResourceInUse):
        create("compiled", "model.tar.gz")
    with pytest.raises(sagemaker.exceptions.ClientError, match="is in status COMPLETED"):
        sagemaker.stop_compilation_job(CompilationJobName="compiled")
    sagemaker.delete_compilation_job(CompilationJobName="compiled")
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_compilation_job(CompilationJobName="compiled")


def test_recommendations_come_from_the_planner(service: Service) -> None:
    sagemaker = service.client("sagemaker")
    sagemaker.create_model(
        ModelName="to-rent-for",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.29.0-lmi11",
            "Environment": {"HF_MODEL_ID": "llama-3-1-8b-instruct"},
        },
    )
    model = {"ModelName": "to-rent-for"}
    sagemaker.create_inference_recommendations_job(
        JobName="default", JobType="Default", RoleArn=ROLE, InputConfig=model
    )
    describe = sagemaker.describe_inference_recommendations_job
    job = ended(describe, "Status", JobName="default")
    assert job["Status"] == "COMPLETED", job.get("FailureReason")
    costs = [one["Metrics"]["CostPerInference"] for one in job["InferenceRecommendations"][:3]]
    assert costs == sorted(costs)
    types = [
        one["EndpointConfiguration"]["InstanceType"] for one in job["InferenceRecommendations"]
    ]
    assert "ml.inf2.48xlarge" in types
    sagemaker.create_inference_recommendations_job(
        JobName="encoder",
        JobType="Default",
        RoleArn=ROLE,
        InputConfig={"ContainerConfig": {"NearestModelName": "all-MiniLM-L6-v2"}},
    )
    job = ended(describe, "Status", JobName="encoder")
    assert job["Status"] == "COMPLETED", job.get("FailureReason")
    cheapest = job["InferenceRecommendations"][0]
    assert cheapest["EndpointConfiguration"]["InstanceType"] == "ml.inf2.xlarge"
    assert cheapest["Metrics"]["MaxInvocations"] > 60_000
    sample = {"messages": [{"role": "user", "content": "word " * 100}], "max_tokens": 32}
    service.client("s3").create_bucket(Bucket="samples")
    service.client("s3").put_object(
        Bucket="samples", Key="one.json", Body=json.dumps(sample).encode()
    )
    sagemaker.create_inference_recommendations_job(
        JobName="advanced",
        JobType="Advanced",
        RoleArn=ROLE,
        InputConfig={
            **model,
            "JobDurationInSeconds": 7200,
            "TrafficPattern": {
                "TrafficType": "PHASES",
                "Phases": [{"InitialNumberOfUsers": 1, "SpawnRate": 2, "DurationInSeconds": 120}],
            },
            "ResourceLimit": {"MaxNumberOfTests": 3},
            "EndpointConfigurations": [
                {
                    "InstanceType": "ml.inf2.24xlarge",
                    "EnvironmentParameterRanges": {
                        "CategoricalParameterRanges": [
                            {"Name": "OPTION_TENSOR_PARALLEL_DEGREE", "Value": ["4", "8"]}
                        ]
                    },
                },
                {"InstanceType": "ml.m5.large"},
            ],
            "ContainerConfig": {"PayloadConfig": {"SamplePayloadUrl": "s3://samples/one.json"}},
        },
        StoppingConditions={
            "MaxInvocations": 1000,
            "ModelLatencyThresholds": [{"Percentile": "P95", "ValueInMilliseconds": 10_000}],
        },
    )
    job = ended(describe, "Status", JobName="advanced")
    assert job["Status"] == "COMPLETED", job.get("FailureReason")
    found = []
    for one in job["InferenceRecommendations"]:
        assert one["EndpointConfiguration"]["InstanceType"] == "ml.inf2.24xlarge"
        assert 0 < one["Metrics"]["ModelLatency"] <= 10_000
        assert one["Metrics"]["MaxInvocations"] > 0
        assert one["InvocationStartTime"] <= one["InvocationEndTime"]
        settings = one["ModelConfiguration"]["EnvironmentParameters"]
        values = {each["Key"]: each["Value"] for each in settings}
        names = ("OPTION_TENSOR_PARALLEL_DEGREE", "OPTION_DATA_PARALLEL_SIZE")
        found.append([values[name] for name in names])
    # As many copies as twelve cores have room for.
    assert sorted(found) == [["4", "3"], ["8", "1"]]
    pages = sagemaker.get_paginator("list_inference_recommendations_job_steps")
    steps = [step for page in pages.paginate(JobName="advanced") for step in page["Steps"]]
    assert [step["Status"] for step in steps] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert "ml.m5.large" in steps[2]["InferenceBenchmark"]["FailureReason"]
    listed = sagemaker.list_inference_recommendations_jobs(NameContains="vanc")
    [entry] = listed["InferenceRecommendationsJobs"]
    assert (entry["JobName"], entry["JobDescription"]) == ("advanced", "")
    assert entry["SamplePayloadUrl"] == "s3://samples/one.json"


def test_a_compiled_model_is_served_as_it_was_compiled(service: Service, tmp_path: Path) -> None:
    """On the chip it was compiled for, and on no other."""
    folder = tmp_path / "model"
    made = ("ridgeline_zoo.prepare", "tiny-llama-seeded", "--out", str(folder))
    subprocess.run(
        [sys.executable, "-m", *made, "--cache-dir", str(tmp_path / "cache")], check=True
    )
    sagemaker, s3 = service.client("sagemaker"), service.client("s3")
    s3.create_bucket(Bucket="served-as-compiled")
    s3.put_object(Bucket="served-as-compiled", Key="model.tar.gz", Body=archive_of(folder))
    sagemaker.create_compilation_job(
        CompilationJobName="to-be-served",
        RoleArn=ROLE,
        InputConfig={"S3Uri": "s3://served-as-compiled/model.tar.gz", "Framework": "PYTORCH"},
        OutputConfig={
            "S3OutputLocation": "s3://served-as-compiled/out",
            "TargetDevice": "ml_inf2",
            "CompilerOptions": '{"tp_degree": 1, "batch_size": 3, "seq_len": 256}',
        },
        StoppingCondition={"MaxRuntimeInSeconds": 300},
    )
    describe = sagemaker.describe_compilation_job
    job = ended(describe, "CompilationJobStatus", CompilationJobName="to-be-served")
    assert job["CompilationJobStatus"] == "COMPLETED", job["FailureReason"]
    for name, instance_type in (("as-compiled", "ml.inf2.xlarge"), ("other", "ml.trn2.48xlarge")):
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=service.role,
            PrimaryContainer={
                "Image": job["InferenceImage"],
                "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"],
            },
        )
        variant = {"VariantName": "A", "ModelName": name, "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[{**variant, "InstanceType": instance_type}],
        )
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    try:
        service.wait_in_service("as-compiled")
        described = json.loads(service.cli("describe", "as-compiled", "--json").stdout)
        [replica] = described["Ridgeline"]["simulated"]
        last = replica["device"]["calls"][-1]
        assert (replica["device"]["neuron_cores"], last["batch"], last["bucket"]) == (1, 3, 256)
        while (seen := sagemaker.describe_endpoint(EndpointName="other"))[
            "EndpointStatus"
        ] == "Creating":
            time.sleep(0.2)
        assert "compiled for ml_inf2 (NeuronCore-v2)" in seen["FailureReason"]
    finally:
        service.delete("as-compiled")
        service.delete("other")
