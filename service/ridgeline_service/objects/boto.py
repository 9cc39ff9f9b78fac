"""How our own processes reach the object store from threads: a boto3 client."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from ridgeline_service.snapshot import Credential


def make_client(
    store_url: str,
    credential: Credential,
    region: str = "us-east-1",
    *,
    attempts: int = 6,
    read_timeout_s: float = 60,
) -> Any:
    """A boto3 S3 client of ours: path style, retries while the store restarts."""
    return boto3.client(
        "s3",
        endpoint_url=store_url,
        region_name=region,
        aws_access_key_id=credential.access_key_id,
        aws_secret_access_key=credential.secret_access_key,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=5,
            read_timeout=read_timeout_s,
            max_pool_connections=32,
            proxies={},
        ),
    )
