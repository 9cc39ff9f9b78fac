"""Batch transform: a model over all records of S3 objects, with the names of SageMaker's SDK."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline._names import check_name, unique_name
from ridgeline.errors import NotFound
from ridgeline.inputs import uploaded
from ridgeline.session import Session
from ridgeline.transform_job import TransformJob


class Transformer:
    """A model that exists, and how its answers are wanted. ``output_path`` is by default a folder
    of the job in the default bucket."""

    def __init__(
        self,
        model_name: str,
        instance_count: int = 1,
        instance_type: str = "ml.m5.xlarge",
        strategy: str | None = None,
        assemble_with: str | None = None,
        output_path: str | None = None,
        accept: str | None = None,
        max_concurrent_transforms: int | None = None,
        max_payload: int | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        env: Mapping[str, str] | None = None,
        base_transform_job_name: str | None = None,
        sagemaker_session: Session | None = None,
    ) -> None:
        self.model_name = model_name
        self.instance_count = instance_count
        self.instance_type = instance_type
        self.strategy = strategy
        self.assemble_with = assemble_with
        self.output_path = output_path
        self.accept = accept
        self.max_concurrent_transforms = max_concurrent_transforms
        self.max_payload = max_payload
        self.tags = [dict(tag) for tag in tags or ()]
        self.env = dict(env or {})
        self.base_transform_job_name = base_transform_job_name
        self.sagemaker_session = sagemaker_session or Session()
        self.latest_transform_job: TransformJob | None = None
        self._path_is_ours = output_path is None

    def __repr__(self) -> str:
        return f"Transformer({self.model_name!r})"

    def transform(
        self,
        data: str | os.PathLike[str],
        data_type: str = "S3Prefix",
        content_type: str | None = None,
        compression_type: str | None = None,
        split_type: str | None = None,
        job_name: str | None = None,
        input_filter: str | None = None,
        output_filter: str | None = None,
        join_source: str | None = None,
        model_client_config: Mapping[str, int] | None = None,
        wait: bool = True,
        logs: bool = True,
    ) -> None:
        """Answer all records of ``data``, an S3 URI or a local path, which is uploaded. The answers
        to ``NAME`` are the object ``NAME.out`` below ``output_path``.

        Raises TransformFailed (reason, last lines) if the job fails or is stopped, InvalidInput for
        what the service refuses, AlreadyExists if the job's name is taken.
        """
        session = self.sagemaker_session
        if job_name is not None:
            check_name(job_name, "job_name", "a transform job")
        base = self.base_transform_job_name or self.model_name
        name = job_name or unique_name(base, session.clock)
        if self._path_is_ours:
            self.output_path = f"s3://{session.default_bucket()}/{name}"
        uri = uploaded(session, data, "data", f"{name}/input")
        request = self._request(name)
        request["TransformInput"] = _given(
            {
                "DataSource": {"S3DataSource": {"S3DataType": data_type, "S3Uri": uri}},
                "ContentType": content_type,
                "CompressionType": compression_type,
                "SplitType": split_type,
            }
        )
        processing = _given(
            {
                "InputFilter": input_filter,
                "OutputFilter": output_filter,
                "JoinSource": join_source,
            }
        )
        if processing:
            request["DataProcessing"] = processing
        if model_client_config:
            request["ModelClientConfig"] = dict(model_client_config)
        with session.call():
            session.sagemaker_client.create_transform_job(**request)
        self.latest_transform_job = TransformJob(name, session)
        session.progress.note(f"Transform job {name}")
        if wait:
            self.latest_transform_job.wait(logs=logs)

    def wait(self, logs: bool = True) -> None:
        """Wait for the last job. Raises as ``transform`` does."""
        self._job().wait(logs=logs)

    def stop_transform_job(self, wait: bool = True) -> None:
        """Stop the last job; outputs that are written stay."""
        job = self._job()
        job.stop()
        clock = self.sagemaker_session.clock
        while wait and job.status == "Stopping":
            clock.sleep(0.5)

    def delete_model(self) -> None:
        """Delete the model that it asks."""
        with self.sagemaker_session.call():
            self.sagemaker_session.sagemaker_client.delete_model(ModelName=self.model_name)

    @classmethod
    def attach(
        cls, transform_job_name: str, sagemaker_session: Session | None = None
    ) -> Transformer:
        """The transformer of a job that exists. Raises NotFound if there is none."""
        session = sagemaker_session or Session()
        job = TransformJob(transform_job_name, session)
        found = job.describe()
        resources, output = found["TransformResources"], found["TransformOutput"]
        transformer = cls(
            found["ModelName"],
            resources["InstanceCount"],
            resources["InstanceType"],
            strategy=found.get("BatchStrategy"),
            assemble_with=output.get("AssembleWith"),
            output_path=output["S3OutputPath"],
            accept=output.get("Accept"),
            max_concurrent_transforms=found.get("MaxConcurrentTransforms"),
            max_payload=found.get("MaxPayloadInMB"),
            env=found.get("Environment"),
            sagemaker_session=session,
        )
        transformer.latest_transform_job = job
        return transformer

    def _request(self, name: str) -> dict[str, Any]:
        return _given(
            {
                "TransformJobName": name,
                "ModelName": self.model_name,
                "TransformOutput": _given(
                    {
                        "S3OutputPath": self.output_path,
                        "AssembleWith": self.assemble_with,
                        "Accept": self.accept,
                    }
                ),
                "TransformResources": {
                    "InstanceType": self.instance_type,
                    "InstanceCount": self.instance_count,
                },
                "BatchStrategy": self.strategy,
                "MaxConcurrentTransforms": self.max_concurrent_transforms,
                "MaxPayloadInMB": self.max_payload,
                "Environment": self.env or None,
                "Tags": self.tags or None,
            }
        )

    def _job(self) -> TransformJob:
        if self.latest_transform_job is None:
            raise NotFound(
                "This transformer has no transform job.", hint="Call transform() or attach()."
            )
        return self.latest_transform_job


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left to the service."""
    return {name: value for name, value in values.items() if value is not None}
