"""A model that can be deployed. Names and arguments as in SageMaker's SDK.

Three calls make an endpoint: CreateModel, CreateEndpointConfig, CreateEndpoint. If one of them is
refused, what was made and uploaded before is taken away again. Waiting is ``_waiting``'s business,
archives are ``_packing``'s.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from ridgeline._endpoints import describe
from ridgeline._names import check_name, image_name, unique_name
from ridgeline._packing import pack_directory, pack_model
from ridgeline._waiting import wait_for_endpoint
from ridgeline.async_inference import AsyncInferenceConfig, split_s3
from ridgeline.deserializers import BaseDeserializer
from ridgeline.errors import AlreadyExists, InvalidInput, NotFound, RidgelineError, Unavailable
from ridgeline.predictor import Predictor
from ridgeline.serializers import BaseSerializer
from ridgeline.serverless import ServerlessInferenceConfig
from ridgeline.session import Session
from ridgeline.transformer import Transformer

_VARIANT = "AllTraffic"
_DEFAULT_INSTANCE_TYPE = "ml.m5.xlarge"


class Model:
    """An image, the model data it loads, and the code it runs.

    ``model_data`` is the S3 URI of a model.tar.gz, an S3 prefix (it ends with ``/``), a
    ModelDataSource mapping, or a local file or folder, which is uploaded: of a folder all but
    hidden files, and what its links lead to. With ``entry_point`` or ``source_dir`` the code is
    packed into the archive's ``code/``.
    """

    def __init__(
        self,
        image_uri: str,
        model_data: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        role: str | None = None,
        predictor_cls: Callable[..., Predictor] | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        vpc_config: Mapping[str, Sequence[str]] | None = None,
        sagemaker_session: Session | None = None,
        enable_network_isolation: bool | None = None,
        source_dir: str | os.PathLike[str] | None = None,
        entry_point: str | None = None,
        dependencies: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        self.image_uri = image_uri
        self.model_data = model_data
        self.role = role
        self.env = dict(env or {})
        self.name = name
        self.vpc_config = vpc_config
        self.sagemaker_session = sagemaker_session or Session()
        self.enable_network_isolation = enable_network_isolation
        self.source_dir = source_dir
        self.entry_point = entry_point
        self.dependencies = tuple(dependencies or ())
        self.predictor_cls = predictor_cls or Predictor
        self.endpoint_name: str | None = None
        self._created: str | None = None
        # Bucket and key of what is removed again if no endpoint comes of it.
        self._uploaded: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"Model({self.name or self.image_uri!r})"

    def create(self, tags: Sequence[Mapping[str, str]] | None = None) -> str:
        """Upload what is local and call CreateModel, once; the model's name."""
        if self._created is not None:
            return self._created
        self._uploaded = []
        session = self.sagemaker_session
        name = self.name or unique_name(self._base_name(), session.clock)
        environment = dict(self.env)
        container: dict[str, Any] = {"Image": self.image_uri}
        container.update(self._model_data(name, environment))
        if environment:
            container["Environment"] = environment
        request: dict[str, Any] = {
            "ModelName": name,
            "PrimaryContainer": container,
            "ExecutionRoleArn": self.role or session.role,
        }
        if self.vpc_config:
            request["VpcConfig"] = dict(self.vpc_config)
        if self.enable_network_isolation is not None:
            request["EnableNetworkIsolation"] = self.enable_network_isolation
        if tags:
            request["Tags"] = [dict(tag) for tag in tags]
        with session.call():
            session.sagemaker_client.create_model(**request)
        self._created = name
        return name

    def deploy(
        self,
        initial_instance_count: int | None = None,
        instance_type: str | None = None,
        serializer: BaseSerializer | None = None,
        deserializer: BaseDeserializer | None = None,
        endpoint_name: str | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        kms_key: str | None = None,
        wait: bool = True,
        data_capture_config: Mapping[str, Any] | None = None,
        async_inference_config: AsyncInferenceConfig | None = None,
        serverless_inference_config: ServerlessInferenceConfig | None = None,
        volume_size: int | None = None,
        model_data_download_timeout: int | None = None,
        container_startup_health_check_timeout: int | None = None,
        wait_timeout_s: float | None = None,
    ) -> Predictor:
        """Create the model and an endpoint for it; with ``wait``, return when it serves.

        Raises DeployFailed (cause, last log lines, hint) if the endpoint ends in Failed,
        AlreadyExists if the endpoint's name is taken, NotReady after ``wait_timeout_s`` seconds.
        """
        session = self.sagemaker_session
        if endpoint_name is not None:
            check_name(endpoint_name, "endpoint_name")
        if serverless_inference_config is not None and initial_instance_count is not None:
            raise InvalidInput(
                "initial_instance_count and serverless_inference_config exclude each other."
            )
        name = endpoint_name or unique_name(self.name or self._base_name(), session.clock)
        variant: dict[str, Any] = {"VariantName": _VARIANT, "InitialVariantWeight": 1.0}
        if serverless_inference_config is not None:
            variant["ServerlessConfig"] = serverless_inference_config.request()
        else:
            variant["InitialInstanceCount"] = (
                1 if initial_instance_count is None else initial_instance_count
            )
            variant["InstanceType"] = instance_type or self.default_instance_type
        optional = {
            "VolumeSizeInGB": volume_size,
            "ModelDataDownloadTimeoutInSeconds": model_data_download_timeout,
            "ContainerStartupHealthCheckTimeoutInSeconds": container_startup_health_check_timeout,
        }
        variant.update((key, value) for key, value in optional.items() if value is not None)
        config: dict[str, Any] = {"EndpointConfigName": name, "ProductionVariants": [variant]}
        if tags:
            config["Tags"] = [dict(tag) for tag in tags]
        if kms_key:
            config["KmsKeyId"] = kms_key
        if data_capture_config:
            config["DataCaptureConfig"] = dict(data_capture_config)
        if async_inference_config is not None:
            config["AsyncInferenceConfig"] = self._async_request(async_inference_config, name)
        self._create_endpoint(name, variant, config, tags)
        if wait:
            title = f"Deploying endpoint {name}"
            wait_for_endpoint(session, name, title=title, timeout_s=wait_timeout_s)
        return self.predictor_cls(
            name, sagemaker_session=session, serializer=serializer, deserializer=deserializer
        )

    def delete_model(self) -> None:
        """Delete the model that ``create`` or ``deploy`` made."""
        if self._created is None:
            raise NotFound("This model was never created.", hint="Call create() or deploy().")
        with self.sagemaker_session.call():
            self.sagemaker_session.sagemaker_client.delete_model(ModelName=self._created)
        self._created = None

    def transformer(
        self,
        instance_count: int = 1,
        instance_type: str | None = None,
        strategy: str | None = None,
        assemble_with: str | None = None,
        output_path: str | None = None,
        accept: str | None = None,
        env: Mapping[str, str] | None = None,
        max_concurrent_transforms: int | None = None,
        max_payload: int | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
    ) -> Transformer:
        """Create the model and a Transformer for it."""
        return Transformer(
            self.create(),
            instance_count,
            instance_type or self.default_instance_type,
            strategy=strategy,
            assemble_with=assemble_with,
            output_path=output_path,
            accept=accept,
            env=env,
            max_concurrent_transforms=max_concurrent_transforms,
            max_payload=max_payload,
            tags=tags,
            base_transform_job_name=self._base_name(),
            sagemaker_session=self.sagemaker_session,
        )

    @property
    def default_instance_type(self) -> str:
        """What ``deploy`` takes if no instance type is named."""
        return _DEFAULT_INSTANCE_TYPE

    def _create_endpoint(
        self,
        name: str,
        variant: dict[str, Any],
        config: dict[str, Any],
        tags: Sequence[Mapping[str, str]] | None,
    ) -> None:
        session = self.sagemaker_session
        client = session.sagemaker_client
        with ExitStack() as undo:
            if self._created is None:
                undo.callback(self._forget_model)
                self.create(tags)
            variant["ModelName"] = self._created
            self._create_config(name, config)
            undo.callback(
                self._quietly,
                client.delete_endpoint_config,
                EndpointConfigName=config["EndpointConfigName"],
            )
            request: dict[str, Any] = {
                "EndpointName": name,
                "EndpointConfigName": config["EndpointConfigName"],
            }
            if tags:
                request["Tags"] = [dict(tag) for tag in tags]
            try:
                with session.call():
                    client.create_endpoint(**request)
            except Unavailable:
                # It may have been created all the same, and then it needs what we made.
                undo.pop_all()
                raise
            undo.pop_all()
        self.endpoint_name = name

    def _create_config(self, name: str, config: dict[str, Any]) -> None:
        """CreateEndpointConfig under the endpoint's name, or under a new one if that is taken.

        A configuration outlives its endpoint if only the endpoint was deleted, and must not keep
        the name from being used again. Raises AlreadyExists if the endpoint itself is there.
        """
        session = self.sagemaker_session
        try:
            with session.call():
                session.sagemaker_client.create_endpoint_config(**config)
            return
        except AlreadyExists:
            self._check_free(name)
            config["EndpointConfigName"] = unique_name(name, session.clock)
        with session.call():
            session.sagemaker_client.create_endpoint_config(**config)

    def _check_free(self, endpoint: str) -> None:
        """Raises AlreadyExists if there is an endpoint of this name."""
        try:
            status = describe(self.sagemaker_session, endpoint)["EndpointStatus"]
        except NotFound:
            return
        raise AlreadyExists(
            f"Endpoint {endpoint!r} exists already and is {status}.",
            hint=f"Take another name, or delete it with `ridgeline delete {endpoint}`.",
        )

    def _forget_model(self) -> None:
        """Undo ``create``, as far as it came."""
        session = self.sagemaker_session
        if self._created is not None:
            self._quietly(session.sagemaker_client.delete_model, ModelName=self._created)
            self._created = None
        for bucket, key in self._uploaded:
            self._quietly(session.s3_client.delete_object, Bucket=bucket, Key=key)
        self._uploaded.clear()

    def _quietly(self, delete: Callable[..., Any], **arguments: str) -> None:
        """Undo one step; the error that made it necessary is the one to report."""
        try:
            with self.sagemaker_session.call():
                delete(**arguments)
        except RidgelineError:
            return

    def _base_name(self) -> str:
        return image_name(self.image_uri)

    def _async_request(self, config: AsyncInferenceConfig, name: str) -> dict[str, Any]:
        if config.output_path and config.failure_path:
            return config.request("", "")
        bucket = self.sagemaker_session.default_bucket()
        return config.request(
            f"s3://{bucket}/async-endpoint-outputs/{name}",
            f"s3://{bucket}/async-endpoint-failures/{name}",
        )

    def _model_data(self, name: str, environment: dict[str, str]) -> dict[str, Any]:
        """The members of the container that say where its model is; adds to ``environment``."""
        data = self.model_data
        if isinstance(data, Mapping):
            if self._has_code():
                raise InvalidInput(
                    "Code cannot be packed into a ModelDataSource.",
                    hint="Give model_data as a model.tar.gz, or put code/ below the prefix.",
                )
            return {"ModelDataSource": dict(data)}
        uri = None if data is None else os.fspath(data)
        if self._has_code():
            return {"ModelDataUrl": self._upload_with_code(name, uri, environment)}
        if uri is None:
            return {}
        if not uri.startswith("s3://"):
            return {"ModelDataUrl": self._upload_local(name, Path(uri.removeprefix("file://")))}
        if uri.endswith("/"):
            return prefix_source(uri)
        return {"ModelDataUrl": uri}

    def _has_code(self) -> bool:
        return bool(self.entry_point or self.source_dir or self.dependencies)

    def _upload_with_code(self, name: str, uri: str | None, environment: dict[str, str]) -> str:
        with ExitStack() as stack:
            old: IO[bytes] | None = None
            if uri is not None:
                old = stack.enter_context(tempfile.TemporaryFile())
                self._fetch(uri, old)
                old.seek(0)
            out = stack.enter_context(tempfile.TemporaryFile())
            program = pack_model(
                out,
                entry_point=self.entry_point,
                source_dir=self.source_dir,
                dependencies=self.dependencies,
                old=old,
            )
            location = self._upload(name, out)
        environment.setdefault("SAGEMAKER_SUBMIT_DIRECTORY", "/opt/ml/model/code")
        environment.setdefault("SAGEMAKER_CONTAINER_LOG_LEVEL", "20")
        environment.setdefault("SAGEMAKER_REGION", self.sagemaker_session.region)
        if program is not None:
            environment.setdefault("SAGEMAKER_PROGRAM", program)
        return location

    def _fetch(self, uri: str, into: IO[bytes]) -> None:
        """The archive at ``uri``, from S3 or from this machine, as an open file."""
        if uri.startswith("s3://"):
            bucket, key = split_s3(uri)
            with self.sagemaker_session.call():
                self.sagemaker_session.s3_client.download_fileobj(bucket, key, into)
            return
        path = Path(uri.removeprefix("file://"))
        if path.is_dir():
            pack_directory(into, path)
        elif path.is_file():
            with path.open("rb") as file:
                shutil.copyfileobj(file, into)
        else:
            raise NotFound(f"model_data {uri!r} does not exist.")

    def _upload_local(self, name: str, path: Path) -> str:
        with tempfile.TemporaryFile() as archive:
            self._fetch(str(path), archive)
            return self._upload(name, archive)

    def _upload(self, name: str, archive: IO[bytes]) -> str:
        bucket, key = self.sagemaker_session.default_bucket(), f"{name}/model.tar.gz"
        archive.seek(0)
        if self.name is None:
            # Under a name that was given lies perhaps what an earlier model of that name needs.
            self._uploaded.append((bucket, key))
        self._upload_file(bucket, key, archive)
        return f"s3://{bucket}/{key}"

    def _upload_file(self, bucket: str, key: str, file: IO[bytes]) -> None:
        with self.sagemaker_session.call():
            self.sagemaker_session.s3_client.upload_fileobj(file, bucket, key)


def prefix_source(uri: str) -> dict[str, Any]:
    """The member of a container whose model is the files below an S3 prefix."""
    source = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
    return {"ModelDataSource": {"S3DataSource": source}}
