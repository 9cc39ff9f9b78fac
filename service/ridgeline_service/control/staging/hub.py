"""A card for a model of the hub that the zoo has no card for, made from its ``config.json``.

With it, such a model takes the same way as every other: prepared once, kept in the zoo's bucket.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ridgeline.errors import RidgelineError
from ridgeline_service.control.staging.base import StagingFailed
from ridgeline_service.files import write_atomic
from ridgeline_service.store.states import Reason
from ridgeline_zoo import Card, load_cards
from ridgeline_zoo.families import (
    ENCODERS,
    context_length,
    parameter_count,
    ranks,
    weight_memory,
)

HUB = "https://huggingface.co"
_TIMEOUT_S = 20
_LIMIT_BYTES = 4 << 20


class HubCards:
    """Keeps the cards it makes in ``folder``, so that ``prepare`` finds them by id."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._environment = environment

    def card(self, hub_id: str) -> Card:
        """A card for ``org/name`` or ``org/name@revision``. Raises StagingFailed."""
        repository, _, revision = hub_id.partition("@")
        revision = revision or "main"
        config = self._config(repository, revision)
        card_id = _card_id(repository, revision)
        try:
            document = _document(card_id, repository, revision, config)
            write_atomic(self.folder / f"{card_id}.yaml", yaml.safe_dump(document))
            return load_cards([self.folder]).get(card_id)
        except RidgelineError as error:
            raise StagingFailed(
                Reason.PREPARE_FAILED, f"{hub_id} cannot run here: {error.message} {error.hint}"
            ) from error

    def _config(self, repository: str, revision: str) -> dict[str, Any]:
        base = (self._environment.get("HF_ENDPOINT") or HUB).rstrip("/")
        url = f"{base}/{repository}/resolve/{revision}/config.json"
        if not url.startswith(("https://", "http://")):
            raise StagingFailed(Reason.PREPARE_FAILED, f"HF_ENDPOINT {base!r} is no URL.")
        request = urllib.request.Request(url)  # noqa: S310 - the scheme was checked above
        token = self._environment.get("HF_TOKEN")
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
                config: dict[str, Any] = json.loads(response.read(_LIMIT_BYTES))
                return config
        except urllib.error.HTTPError as error:
            raise _refused(repository, revision, base, error.code) from error
        except (OSError, ValueError) as error:
            raise StagingFailed(
                Reason.DOWNLOAD_FAILED,
                f"{repository} is no model of the zoo, and {base} could not be read: {error}. "
                "Check the name, the network and HF_ENDPOINT.",
            ) from error


def _refused(repository: str, revision: str, base: str, status: int) -> StagingFailed:
    if status in (401, 403):
        message = (
            f"{base} does not hand out {repository} (HTTP {status}): there is no such model, or it "
            "is gated. Accept its licence on its page and set HF_TOKEN for the service."
        )
        return StagingFailed(Reason.PREPARE_FAILED, message)
    if status == 404:
        message = f"{base} has no config.json of {repository} at revision {revision}."
        return StagingFailed(Reason.PREPARE_FAILED, message)
    return StagingFailed(Reason.DOWNLOAD_FAILED, f"{base} answered HTTP {status} for {repository}.")


def _card_id(repository: str, revision: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", repository.lower()).strip("-")[:40].strip("-")
    digest = hashlib.sha256(f"{repository}@{revision}".encode()).hexdigest()[:10]
    return f"hub-{words}-{digest}"


def _document(
    card_id: str, repository: str, revision: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = parameter_count(config)
    encoder = config.get("model_type") in ENCODERS
    task = "text-generation"
    if encoder:
        task = "text-ranking" if ranks(config) else "text-embedding"
    return {
        "id": card_id,
        "version": "1.0.0",
        "title": repository,
        "description": f"{repository} as the hub has it.",
        "task": task,
        "family": str(config.get("model_type")),
        "image": "embedding" if encoder else "llm",
        "licence": "unknown",
        "source": f"hf://{repository}",
        "revision": revision,
        "published": False,
        "parameters": parameters,
        "context_length": context_length(config) or 0,
        "dtype": "fp32" if encoder else "bf16",
        "memory": weight_memory(parameters),
        "default_instance_type": "ml.m5.xlarge",
        "supported_instance_types": ["ml.m5.xlarge"],
        "backends": ["cpu"],
        "config": dict(config),
        "example_payloads": [{"name": "Hello", "body": {"inputs": "hello world"}}],
    }
