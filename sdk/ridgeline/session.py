"""One service and the keys to it: everything else of the client is handed a ``Session``.

    Session()                                   the service of $RIDGELINE_HOME or ~/.ridgeline
    Session(data_dir="/srv/ml")                 the service of that directory
    Session(endpoint_url=..., access_key_id=..., secret_access_key=...)
    Session(aws=True)                           AWS, with boto3's usual credentials
    Session(boto_session=boto3.Session(...))    whatever that boto3 session is set up for

Discovery itself is ``ridgeline._discovery``. Nothing is looked up, sent or imported from a profile
before the first use of a client, but a service that is not there is reported at once.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from ridgeline._api import Api
from ridgeline._clock import Clock, SystemClock
from ridgeline._discovery import Address, Keys, find_service
from ridgeline._progress import Progress, default_progress
from ridgeline._translate import translated
from ridgeline.errors import AlreadyExists, InvalidInput, NotFound, Unsupported

_RETRIES = {"mode": "standard", "total_max_attempts": 4}
_CONNECTIONS = 64
_CONNECT_S = 5
_READ_S = 60
# Control calls answer at once; retries of one that does not are no reason to be silent for minutes.
_CONTROL_S = 30
# A model may think for minutes; a retry of a slow call would only make it think twice.
_INFERENCE_READ_S = 900
_BEGAN = "ridgeline_began"


class Session:
    """Clients for one service. Thread-safe, as boto3's clients are.

    ``environ`` and ``home`` stand in for the process's own in tests; ``clock`` for time;
    ``progress`` for where waits show how far they are (None: rich on a terminal, else lines).

    Raises NotRunning if the directory found has no running service.
    """

    def __init__(
        self,
        boto_session: Any = None,
        *,
        endpoint_url: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        region: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        aws: bool = False,
        default_bucket: str | None = None,
        progress: Progress | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.progress: Progress = progress or default_progress()
        self._environ = os.environ if environ is None else environ
        self._bucket = default_bucket
        self.address: Address | None = None
        self._endpoint_url: str | None = None
        self._ignore_configured = False
        if boto_session is not None or aws:
            if aws and (boto_session is not None or endpoint_url is not None):
                raise InvalidInput("aws=True stands alone: it means AWS and nothing else.")
            if data_dir is not None or access_key_id is not None or secret_access_key is not None:
                raise InvalidInput(
                    "A boto3 session brings its own keys: data_dir, access_key_id and "
                    "secret_access_key cannot be given with it."
                )
            self._ignore_configured = aws
            self._endpoint_url = endpoint_url
            self.boto_session = boto_session or boto3.Session(region_name=region)
        else:
            self.address = find_service(
                endpoint_url=endpoint_url,
                keys=_keys(access_key_id, secret_access_key),
                region=region,
                data_dir=data_dir,
                environ=environ,
                home=home,
            )
            self._endpoint_url = self.address.url
            self.boto_session = _isolated_boto_session(self.address)

    def __repr__(self) -> str:
        return f"Session({self._endpoint_url or 'AWS'}, region={self.region!r})"

    @property
    def region(self) -> str:
        if self.address is not None:
            return self.address.region
        return str(self.boto_session.region_name or "us-east-1")

    boto_region_name = region

    @cached_property
    def sagemaker_client(self) -> Any:
        return self._control_client("sagemaker")

    @cached_property
    def sagemaker_runtime_client(self) -> Any:
        return self._client("sagemaker-runtime", _INFERENCE_READ_S)

    @cached_property
    def s3_client(self) -> Any:
        return self._client("s3", _READ_S)

    @cached_property
    def logs_client(self) -> Any:
        return self._control_client("logs")

    @cached_property
    def scaling_client(self) -> Any:
        return self._control_client("application-autoscaling")

    @cached_property
    def url(self) -> str:
        """Where the SageMaker API of this session is."""
        return self._endpoint_url or str(self.sagemaker_client.meta.endpoint_url)

    @cached_property
    def is_aws(self) -> bool:
        """Whether the other side is AWS itself, which has no ``/api``."""
        host = urlsplit(self.url).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))

    @cached_property
    def api(self) -> Api:
        """The service's own REST API. Raises Unsupported for a session with AWS."""
        if self.is_aws:
            raise Unsupported(
                "This session speaks to AWS, which has no zoo, keys or stage tables.",
                hint="Use a session with a Ridgeline service: `ridgeline up` starts one.",
            )
        return Api(
            self.url,
            self.region,
            self.boto_session.get_credentials(),
            start_hint=self._start_hint(),
            silent_hint=self._silent_hint(),
            proxies=_proxies(self.url),
        )

    @cached_property
    def info(self) -> Mapping[str, Any]:
        """``GET /api/info``: version, region, account_id, role_arn, default_bucket."""
        return dict(self.api.get("info"))

    @cached_property
    def role(self) -> str:
        """The role that models run under: ``$RIDGELINE_ROLE_ARN``, else what the service says."""
        given = self._environ.get("RIDGELINE_ROLE_ARN")
        if given:
            return given
        if self.is_aws:
            raise InvalidInput(
                "On AWS a model needs a role.", hint="Pass role=, or set RIDGELINE_ROLE_ARN."
            )
        return str(self.info["role_arn"])

    def get_caller_identity_arn(self) -> str:
        """The role's ARN, under the name that SageMaker's SDK has for it."""
        return self.role

    def default_bucket(self) -> str:
        """The bucket that uploads go to when none is named; made if it is not there."""
        if self._bucket is None:
            if self.is_aws:
                with self.call():
                    account = self._client("sts", _READ_S).get_caller_identity()["Account"]
                self._bucket = f"sagemaker-{self.region}-{account}"
            else:
                self._bucket = str(self.info["default_bucket"])
        self._ensure_bucket(self._bucket)
        return self._bucket

    def upload_data(
        self,
        path: str | os.PathLike[str],
        bucket: str | None = None,
        key_prefix: str = "data",
        extra_args: Mapping[str, str] | None = None,
    ) -> str:
        """Upload a file, or a folder with everything below it; the S3 URI of what was uploaded."""
        root = Path(path)
        if not root.exists():
            raise NotFound(f"{root} does not exist.")
        bucket = bucket or self.default_bucket()
        prefix = key_prefix.strip("/")
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        base = root.parent if root.is_file() else root
        for file in files:
            key = "/".join(filter(None, (prefix, file.relative_to(base).as_posix())))
            with self.call(), file.open("rb") as body:
                self.s3_client.upload_fileobj(body, bucket, key, ExtraArgs=dict(extra_args or {}))
        where = "/".join(filter(None, (prefix, root.name if root.is_file() else "")))
        return f"s3://{bucket}/{where}"

    def upload_bytes(
        self, data: bytes, bucket: str, key: str, content_type: str = "application/octet-stream"
    ) -> str:
        """Upload ``data`` as one object; its S3 URI."""
        with self.call():
            self.s3_client.put_object(Bucket=bucket, Key=key, Body=data, ContentType=content_type)
        return f"s3://{bucket}/{key}"

    @contextmanager
    def call(self) -> Iterator[None]:
        """Run boto3 calls; errors leave as ``ridgeline.errors``."""
        with translated(
            self._endpoint_url or "AWS",
            start_hint=self._start_hint(),
            silent_hint=self._silent_hint(),
        ):
            yield

    def _start_hint(self) -> str:
        return self.address.start_hint() if self.address is not None else ""

    def _silent_hint(self) -> str:
        return self.address.silent_hint() if self.address is not None else ""

    def _ensure_bucket(self, bucket: str) -> None:
        try:
            with self.call():
                self.s3_client.head_bucket(Bucket=bucket)
            return
        except NotFound:
            pass
        where: dict[str, Any] = {}
        if self.region != "us-east-1":
            where["CreateBucketConfiguration"] = {"LocationConstraint": self.region}
        try:
            with self.call():
                self.s3_client.create_bucket(Bucket=bucket, **where)
        except AlreadyExists:
            # Somebody else was faster; HeadBucket said that nobody had been.
            return

    def _control_client(self, service: str) -> Any:
        """A client whose calls end, retries and all, soon after ``_CONTROL_S`` seconds."""
        client = self._client(service, _CONTROL_S)
        client.meta.events.register("before-call", _note_beginning)
        client.meta.events.register("request-created", _refuse_late_retry)
        return client

    def _client(self, service: str, read_timeout_s: float) -> Any:
        ours = self._endpoint_url is not None
        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=read_timeout_s,
            retries=dict(_RETRIES),
            max_pool_connections=_CONNECTIONS,
            proxies=_proxies(self._endpoint_url) if self._endpoint_url is not None else None,
            ignore_configured_endpoint_urls=self._ignore_configured or None,
            # The environment may ask for AWS's special addresses, which an address of ours is not.
            use_dualstack_endpoint=False if ours else None,
            use_fips_endpoint=False if ours else None,
            s3={"addressing_style": "path"} if ours else None,
        )
        with self.call():
            return self.boto_session.client(
                service,
                region_name=self.region,
                endpoint_url=self._endpoint_url,
                config=config,
            )


def _note_beginning(context: dict[str, Any], **_: object) -> None:
    context[_BEGAN] = time.monotonic()


def _refuse_late_retry(request: Any, **_: object) -> None:
    """botocore asks before every attempt; an error from here ends the call at once."""
    if time.monotonic() - request.context.get(_BEGAN, math.inf) >= _CONTROL_S:
        raise ReadTimeoutError(endpoint_url=request.url)


def _keys(access_key_id: str | None, secret_access_key: str | None) -> Keys | None:
    if access_key_id is None and secret_access_key is None:
        return None
    if not access_key_id or not secret_access_key:
        raise InvalidInput("access_key_id and secret_access_key must be given together.")
    return Keys(access_key_id, secret_access_key)


def _isolated_boto_session(address: Address) -> Any:
    """A boto3 session that knows this address's keys and reads no profile, not even by name."""
    core = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    return boto3.Session(
        aws_access_key_id=address.keys.access_key_id,
        aws_secret_access_key=address.keys.secret_access_key,
        aws_session_token=address.keys.session_token,
        region_name=address.region,
        botocore_session=core,
    )


def _proxies(url: str) -> dict[str, str] | None:
    """No proxy for an address of this machine: HTTP_PROXY is meant for the world outside."""
    host = urlsplit(url).hostname or ""
    return {} if host == "localhost" or host.startswith("127.") or host == "::1" else None
