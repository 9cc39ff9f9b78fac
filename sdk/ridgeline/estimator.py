"""Estimators: a script, where it runs and what it reads, with the names of SageMaker's SDK.

``fit`` uploads what is local, creates the training job and waits for it with its log. Waiting is
``training_job``'s business, archives are ``_packing``'s, framework images are ``frameworks``'s.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline._names import check_name, image_name, unique_name
from ridgeline._packing import pack_source
from ridgeline.errors import InvalidInput, NotFound
from ridgeline.inputs import Inputs, channels
from ridgeline.model import Model
from ridgeline.predictor import Predictor
from ridgeline.session import Session
from ridgeline.training_job import TrainingJob
from ridgeline.transformer import Transformer

_DEFAULT_INSTANCE_TYPE = "ml.m5.xlarge"
_OWN = "sagemaker_"


class Estimator:
    """Any training image. With ``entry_point`` the script runs in script mode: ``source_dir`` is
    packed and uploaded, hyperparameters become its arguments; without, the image's entry point or
    ``container_entry_point`` runs."""

    def __init__(
        self,
        image_uri: str,
        role: str | None = None,
        instance_count: int = 1,
        instance_type: str | None = None,
        keep_alive_period_in_seconds: int | None = None,
        volume_size: int = 30,
        max_run: int = 24 * 60 * 60,
        input_mode: str = "File",
        output_path: str | None = None,
        base_job_name: str | None = None,
        sagemaker_session: Session | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        metric_definitions: Sequence[Mapping[str, str]] | None = None,
        use_spot_instances: bool = False,
        max_wait: int | None = None,
        checkpoint_s3_uri: str | None = None,
        checkpoint_local_path: str | None = None,
        enable_network_isolation: bool = False,
        environment: Mapping[str, str] | None = None,
        max_retry_attempts: int | None = None,
        entry_point: str | None = None,
        source_dir: str | os.PathLike[str] | None = None,
        dependencies: Sequence[str | os.PathLike[str]] | None = None,
        container_entry_point: Sequence[str] | None = None,
        container_arguments: Sequence[str] | None = None,
        code_location: str | None = None,
        distribution: Mapping[str, Any] | None = None,
    ) -> None:
        self.image_uri = image_uri
        self.role = role
        self.instance_count = instance_count
        self.instance_type = instance_type or _DEFAULT_INSTANCE_TYPE
        self.keep_alive_period_in_seconds = keep_alive_period_in_seconds
        self.volume_size = volume_size
        self.max_run = max_run
        self.input_mode = input_mode
        self.output_path = output_path
        self.base_job_name = base_job_name
        self.sagemaker_session = sagemaker_session or Session()
        self.metric_definitions = [dict(item) for item in metric_definitions or ()]
        self.tags = [dict(tag) for tag in tags or ()]
        self.use_spot_instances = use_spot_instances
        self.max_wait = max_wait
        self.checkpoint_s3_uri = checkpoint_s3_uri
        self.checkpoint_local_path = checkpoint_local_path
        self.enable_network_isolation = enable_network_isolation
        self.environment = dict(environment or {})
        self.max_retry_attempts = max_retry_attempts
        self.entry_point = entry_point
        self.source_dir = source_dir
        self.dependencies = tuple(dependencies or ())
        self.container_entry_point = tuple(container_entry_point or ())
        self.container_arguments = tuple(container_arguments or ())
        self.code_location = code_location
        self.distribution = dict(distribution or {})
        self.latest_training_job: TrainingJob | None = None
        self._hyperparameters = dict(hyperparameters or {})
        if source_dir is not None and entry_point is None:
            raise InvalidInput(
                "source_dir is given without entry_point.",
                hint="entry_point is the script in source_dir, like entry_point='train.py'.",
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.entry_point or self.image_uri!r})"

    def set_hyperparameters(self, **values: Any) -> None:
        """Add or replace hyperparameters of the next ``fit``."""
        self._hyperparameters.update(values)

    def hyperparameters(self) -> dict[str, Any]:
        return dict(self._hyperparameters)

    def fit(
        self,
        inputs: Inputs = None,
        wait: bool = True,
        logs: str | bool = True,
        job_name: str | None = None,
    ) -> None:
        """Train. ``inputs`` are channels by name, S3 URIs or local paths; one alone is the channel
        ``training``. With ``wait``, stages and (with ``logs``) lines show until the job has ended.

        Raises TrainingFailed (reason, last lines, hint) if it fails or is stopped, InvalidInput for
        what the service refuses, AlreadyExists if the job's name is taken.
        """
        session = self.sagemaker_session
        if job_name is not None:
            check_name(job_name, "job_name", "a training job")
        name = job_name or unique_name(
            self.base_job_name or image_name(self.image_uri), session.clock
        )
        request = self.training_request(name, inputs)
        with session.call():
            session.sagemaker_client.create_training_job(**request)
        self.latest_training_job = TrainingJob(name, session)
        session.progress.note(f"Training job {name}")
        if wait:
            self.latest_training_job.wait(logs=logs not in (False, "None"))

    @classmethod
    def attach(cls, training_job_name: str, sagemaker_session: Session | None = None) -> Estimator:
        """The estimator of a job that exists. Raises NotFound if there is none."""
        session = sagemaker_session or Session()
        job = TrainingJob(training_job_name, session)
        found = job.describe()
        image = found["AlgorithmSpecification"]["TrainingImage"]
        estimator = Estimator(image, sagemaker_session=session, **described_options(found))
        estimator.latest_training_job = job
        return estimator

    @property
    def model_data(self) -> str:
        """Where the model of the last job lies. Raises NotFound before ``fit``, NotReady before the
        job has uploaded it."""
        return self._job().model_data

    def logs(self, last: int = 100) -> None:
        """Show what the last job wrote last."""
        for line in self._job().logs(last):
            self.sagemaker_session.progress.note(line.text)

    def create_model(
        self,
        entry_point: str | None = None,
        source_dir: str | os.PathLike[str] | None = None,
        image_uri: str | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Model:
        """The model that the last job made, to be served by the inference image that belongs to
        the training image. Code in the archive's ``code/`` serves it, or ``entry_point``."""
        return Model(
            image_uri or serving_image(self.image_uri),
            self.model_data,
            role=self.role,
            name=name,
            env=env,
            entry_point=entry_point,
            source_dir=source_dir,
            sagemaker_session=self.sagemaker_session,
        )

    def deploy(
        self,
        initial_instance_count: int = 1,
        instance_type: str | None = None,
        *,
        entry_point: str | None = None,
        source_dir: str | os.PathLike[str] | None = None,
        image_uri: str | None = None,
        model_name: str | None = None,
        env: Mapping[str, str] | None = None,
        **deployment: Any,
    ) -> Predictor:
        """``create_model`` and ``Model.deploy``, which takes the rest of the arguments."""
        model = self.create_model(entry_point, source_dir, image_uri, model_name, env)
        return model.deploy(
            initial_instance_count, instance_type or self.instance_type, **deployment
        )

    def training_request(self, name: str, inputs: Inputs) -> dict[str, Any]:
        """The CreateTrainingJob request of a job of this name; what is local is uploaded."""
        session = self.sagemaker_session
        output = self.output_path or f"s3://{session.default_bucket()}"
        resources: dict[str, Any] = {
            "InstanceType": self.instance_type,
            "InstanceCount": self.instance_count,
            "VolumeSizeInGB": self.volume_size,
        }
        if self.keep_alive_period_in_seconds is not None:
            resources["KeepAlivePeriodInSeconds"] = self.keep_alive_period_in_seconds
        stopping = {"MaxRuntimeInSeconds": self.max_run}
        if self.max_wait is not None:
            stopping["MaxWaitTimeInSeconds"] = self.max_wait
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": self.role or session.role,
            "AlgorithmSpecification": self._algorithm(),
            "OutputDataConfig": {"S3OutputPath": output},
            "ResourceConfig": resources,
            "StoppingCondition": stopping,
        }
        optional = {
            "InputDataConfig": channels(session, name, inputs),
            "HyperParameters": self._all_hyperparameters(name),
            "Environment": self.environment,
            "Tags": self.tags,
            "CheckpointConfig": self._checkpoints(),
            "EnableNetworkIsolation": self.enable_network_isolation,
            "EnableManagedSpotTraining": self.use_spot_instances,
        }
        request.update((key, value) for key, value in optional.items() if value)
        if self.max_retry_attempts is not None:
            request["RetryStrategy"] = {"MaximumRetryAttempts": self.max_retry_attempts}
        return request

    def transformer(
        self,
        instance_count: int = 1,
        instance_type: str | None = None,
        *,
        entry_point: str | None = None,
        source_dir: str | os.PathLike[str] | None = None,
        image_uri: str | None = None,
        model_name: str | None = None,
        **options: Any,
    ) -> Transformer:
        """``create_model`` and ``Model.transformer``, which takes the rest of the arguments."""
        model = self.create_model(entry_point, source_dir, image_uri, model_name)
        return model.transformer(instance_count, instance_type or self.instance_type, **options)

    def _job(self) -> TrainingJob:
        if self.latest_training_job is None:
            raise NotFound("This estimator has no training job.", hint="Call fit() or attach().")
        return self.latest_training_job

    def _algorithm(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "TrainingImage": self.image_uri,
            "TrainingInputMode": self.input_mode,
        }
        if self.metric_definitions:
            found["MetricDefinitions"] = self.metric_definitions
        if self.container_entry_point:
            found["ContainerEntrypoint"] = list(self.container_entry_point)
        if self.container_arguments:
            found["ContainerArguments"] = list(self.container_arguments)
        return found

    def _checkpoints(self) -> dict[str, str]:
        if self.checkpoint_s3_uri is None:
            return {}
        path = {"LocalPath": self.checkpoint_local_path} if self.checkpoint_local_path else {}
        return {"S3Uri": self.checkpoint_s3_uri, **path}

    def _all_hyperparameters(self, name: str) -> dict[str, str]:
        """The user's and the toolkit's own, as text. In script mode values are JSON, so that the
        script gets back what was given; without, they are what the image expects."""
        if self.entry_point is None:
            return {key: _plain(value) for key, value in self._hyperparameters.items()}
        own: dict[str, Any] = {
            "sagemaker_program": os.path.basename(self.entry_point)
            if self.source_dir is None
            else self.entry_point,
            "sagemaker_submit_directory": self._upload_source(name),
            "sagemaker_job_name": name,
            "sagemaker_region": self.sagemaker_session.region,
            "sagemaker_container_log_level": 20,
            **distribution_hyperparameters(self.distribution),
        }
        return {key: json.dumps(value) for key, value in {**self._hyperparameters, **own}.items()}

    def _upload_source(self, name: str) -> str:
        session = self.sagemaker_session
        location = self.code_location or f"s3://{session.default_bucket()}"
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        key = "/".join(filter(None, (prefix.strip("/"), name, "source/sourcedir.tar.gz")))
        with tempfile.TemporaryFile() as archive:
            pack_source(
                archive,
                entry_point=self.entry_point,
                source_dir=self.source_dir,
                dependencies=self.dependencies,
            )
            archive.seek(0)
            with session.call():
                session.s3_client.upload_fileobj(archive, bucket, key)
        return f"s3://{bucket}/{key}"


def distribution_hyperparameters(distribution: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the toolkit to start several processes. Raises InvalidInput for kinds that do not
    run here."""
    known = {
        "torch_distributed": "sagemaker_torch_distributed_enabled",
        "pytorchddp": "sagemaker_pytorch_ddp_enabled",
    }
    found = {}
    for kind, settings in distribution.items():
        if kind not in known:
            raise InvalidInput(
                f"distribution {kind!r} does not run here.",
                hint="distribution={'torch_distributed': {'enabled': True}} starts torchrun.",
            )
        if settings.get("enabled"):
            found[known[kind]] = True
    return found


def described_options(found: Mapping[str, Any]) -> dict[str, Any]:
    """What an estimator is told, of a job's description: all but its image and its script."""
    resources = found.get("ResourceConfig") or {}
    values = found.get("HyperParameters") or {}
    return {
        "role": found.get("RoleArn"),
        "instance_count": resources.get("InstanceCount", 1),
        "instance_type": resources.get("InstanceType"),
        "volume_size": resources.get("VolumeSizeInGB", 30),
        "output_path": found["OutputDataConfig"]["S3OutputPath"],
        "hyperparameters": {k: v for k, v in values.items() if not k.startswith(_OWN)},
        "environment": found.get("Environment"),
    }


def serving_image(training_image: str) -> str:
    """The inference image that belongs to a training image; images that do both stay."""
    registry, slash, rest = training_image.rpartition("/")
    repository, colon, tag = rest.partition(":")
    served = repository.replace("-training", "-inference")
    return f"{registry}{slash}{served}{colon}{tag}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
