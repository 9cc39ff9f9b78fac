"""Processors: a script or a program over data of S3, with the names of SageMaker's SDK.

``run`` uploads what is local, creates the processing job and waits for it with its log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ridgeline._names import check_name, image_name, unique_name
from ridgeline.errors import InvalidInput
from ridgeline.inputs import uploaded
from ridgeline.processing_job import ProcessingJob
from ridgeline.session import Session

LOCAL = "/opt/ml/processing"
CODE = f"{LOCAL}/input/code"

_SKLEARN = "683313688378.dkr.ecr.{region}.amazonaws.com/sagemaker-scikit-learn:{version}-cpu-py3"


@dataclass
class ProcessingInput:
    """Data that the script finds at ``destination``, below /opt/ml/processing. ``source`` is an S3
    URI, or a local path, which is uploaded when the job is created."""

    source: str | os.PathLike[str]
    destination: str
    input_name: str | None = None
    s3_data_type: str = "S3Prefix"
    s3_input_mode: str = "File"
    s3_data_distribution_type: str = "FullyReplicated"
    s3_compression_type: str = "None"

    def request(self, name: str, uri: str) -> dict[str, Any]:
        """The input of CreateProcessingJob, with its data at ``uri``."""
        source = {
            "S3Uri": uri,
            "LocalPath": self.destination,
            "S3DataType": self.s3_data_type,
            "S3InputMode": self.s3_input_mode,
            "S3DataDistributionType": self.s3_data_distribution_type,
            "S3CompressionType": self.s3_compression_type,
        }
        return {"InputName": name, "S3Input": source}


@dataclass
class ProcessingOutput:
    """What the script leaves at ``source``, below /opt/ml/processing, goes to ``destination``, by
    default a folder of the job in the default bucket; ``Continuous`` while it runs."""

    source: str
    destination: str | None = None
    output_name: str | None = None
    s3_upload_mode: str = "EndOfJob"


@dataclass
class NetworkConfig:
    """``enable_network_isolation`` leaves the script no network."""

    enable_network_isolation: bool = False


class Processor:
    """Any training image and the program that runs in it, ``entrypoint``."""

    def __init__(
        self,
        role: str | None = None,
        image_uri: str | None = None,
        instance_count: int = 1,
        instance_type: str = "ml.m5.xlarge",
        entrypoint: Sequence[str] | None = None,
        volume_size_in_gb: int = 30,
        max_runtime_in_seconds: int | None = None,
        base_job_name: str | None = None,
        sagemaker_session: Session | None = None,
        env: Mapping[str, str] | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        network_config: NetworkConfig | None = None,
    ) -> None:
        if image_uri is None:
            raise InvalidInput(
                "image_uri is not given.", hint="SKLearnProcessor knows the image of its framework."
            )
        self.role = role
        self.image_uri = image_uri
        self.instance_count = instance_count
        self.instance_type = instance_type
        self.entrypoint = list(entrypoint or ())
        self.volume_size_in_gb = volume_size_in_gb
        self.max_runtime_in_seconds = max_runtime_in_seconds
        self.base_job_name = base_job_name
        self.sagemaker_session = sagemaker_session or Session()
        self.env = dict(env or {})
        self.tags = [dict(tag) for tag in tags or ()]
        self.network_config = network_config
        self.latest_job: ProcessingJob | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.image_uri!r})"

    def run(
        self,
        inputs: Sequence[ProcessingInput] | None = None,
        outputs: Sequence[ProcessingOutput] | None = None,
        arguments: Sequence[str] | None = None,
        wait: bool = True,
        logs: bool = True,
        job_name: str | None = None,
    ) -> None:
        """Run it. With ``wait``, stages and (with ``logs``) lines show until the job has ended.

        Raises ProcessingFailed (reason, last lines) if it fails or is stopped, InvalidInput for
        what the service refuses, AlreadyExists if the job's name is taken.
        """
        name = self._name(job_name)
        self._start(name, self.entrypoint, inputs or (), outputs or (), arguments or (), wait, logs)

    def _name(self, given: str | None) -> str:
        if given is not None:
            return check_name(given, "job_name", "a processing job")
        base = self.base_job_name or image_name(self.image_uri)
        return unique_name(base, self.sagemaker_session.clock)

    def _start(
        self,
        name: str,
        entrypoint: Sequence[str],
        inputs: Sequence[ProcessingInput],
        outputs: Sequence[ProcessingOutput],
        arguments: Sequence[str],
        wait: bool,
        logs: bool,
    ) -> None:
        session = self.sagemaker_session
        application: dict[str, Any] = {"ImageUri": self.image_uri}
        if entrypoint:
            application["ContainerEntrypoint"] = list(entrypoint)
        if arguments:
            application["ContainerArguments"] = [str(argument) for argument in arguments]
        request: dict[str, Any] = {
            "ProcessingJobName": name,
            "RoleArn": self.role or session.role,
            "AppSpecification": application,
            "ProcessingInputs": [
                self._input(name, item, number) for number, item in enumerate(inputs, start=1)
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    self._output(name, item, number) for number, item in enumerate(outputs, start=1)
                ]
            },
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": self.instance_type,
                    "InstanceCount": self.instance_count,
                    "VolumeSizeInGB": self.volume_size_in_gb,
                }
            },
        }
        if self.env:
            request["Environment"] = self.env
        if self.tags:
            request["Tags"] = self.tags
        if self.max_runtime_in_seconds is not None:
            request["StoppingCondition"] = {"MaxRuntimeInSeconds": self.max_runtime_in_seconds}
        if self.network_config is not None:
            isolated = self.network_config.enable_network_isolation
            request["NetworkConfig"] = {"EnableNetworkIsolation": isolated}
        with session.call():
            session.sagemaker_client.create_processing_job(**request)
        self.latest_job = ProcessingJob(name, session)
        session.progress.note(f"Processing job {name}")
        if wait:
            self.latest_job.wait(logs=logs)

    def _input(self, job: str, item: ProcessingInput, number: int) -> dict[str, Any]:
        name = item.input_name or f"input-{number}"
        who, prefix = f"Input {name!r}", f"{job}/input/{name}"
        return item.request(name, uploaded(self.sagemaker_session, item.source, who, prefix))

    def _output(self, job: str, item: ProcessingOutput, number: int) -> dict[str, Any]:
        name = item.output_name or f"output-{number}"
        bucket = self.sagemaker_session.default_bucket
        target = {
            "S3Uri": item.destination or f"s3://{bucket()}/{job}/output/{name}",
            "LocalPath": item.source,
            "S3UploadMode": item.s3_upload_mode,
        }
        return {"OutputName": name, "S3Output": target}


class ScriptProcessor(Processor):
    """A script, run by ``command``, such as ``["python3"]``."""

    def __init__(
        self,
        role: str | None = None,
        image_uri: str | None = None,
        command: Sequence[str] = ("python3",),
        instance_count: int = 1,
        instance_type: str = "ml.m5.xlarge",
        **options: Any,
    ) -> None:
        super().__init__(role, image_uri, instance_count, instance_type, **options)
        self.command = list(command)

    def run(  # type: ignore[override]  # as in SageMaker's SDK: the script comes first
        self,
        code: str | os.PathLike[str],
        inputs: Sequence[ProcessingInput] | None = None,
        outputs: Sequence[ProcessingOutput] | None = None,
        arguments: Sequence[str] | None = None,
        wait: bool = True,
        logs: bool = True,
        job_name: str | None = None,
    ) -> None:
        """Run ``code``, a local file or an object of S3, as ``Processor.run`` does. A local script
        lies at /opt/ml/processing/input/code."""
        name = self._name(job_name)
        given = ProcessingInput(code, CODE, "code")
        script = f"{CODE}/{PurePosixPath(os.fspath(code)).name}"
        entrypoint = [*self.command, script]
        inputs = [*(inputs or ()), given]
        self._start(name, entrypoint, inputs, outputs or (), arguments or (), wait, logs)


class SKLearnProcessor(ScriptProcessor):
    """A script with scikit-learn and pandas. The version names the image; here the runtime's own
    version counts, which the documentation of the service lists."""

    def __init__(
        self,
        framework_version: str = "1.2-1",
        role: str | None = None,
        instance_type: str = "ml.m5.xlarge",
        instance_count: int = 1,
        command: Sequence[str] = ("python3",),
        image_uri: str | None = None,
        sagemaker_session: Session | None = None,
        **options: Any,
    ) -> None:
        session = sagemaker_session or Session()
        super().__init__(
            role,
            image_uri or _SKLEARN.format(region=session.region, version=framework_version),
            command,
            instance_count,
            instance_type,
            sagemaker_session=session,
            **options,
        )
