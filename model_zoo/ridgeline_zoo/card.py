"""What a card says about one model, as frozen values.

Knows no YAML (``schema``), no catalogue and no download: it is the type everyone else passes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Task = Literal["text-generation", "text-embedding", "text-ranking"]
Dtype = Literal["bf16", "fp32"]
Image = Literal["llm", "embedding"]

BYTES_PER_PARAMETER: Mapping[str, int] = MappingProxyType({"bf16": 2, "fp32": 4})


@dataclass(frozen=True)
class ExamplePayload:
    """A request body that works on an endpoint of this model, ready to be sent."""

    name: str
    body: Mapping[str, Json]
    content_type: str = "application/json"


@dataclass(frozen=True)
class Card:
    """One model of the zoo. ``id`` is also a valid SageMaker name (no dots).

    ``dtype`` is what the prepared files hold and what an endpoint runs unless told otherwise;
    ``memory`` is the bytes of the weights alone, per dtype. ``sha256`` maps names of downloaded
    files to hashes that somebody computed: empty means that none is known, and that the first
    download records them. ``hub_id`` is the hub repository the card stands for, whatever its
    source. ``config`` is the Hugging Face configuration that parameters and memory follow from.
    ``sampling`` is what the publisher recommends, where the files themselves do not say it.
    """

    id: str
    version: str
    title: str
    description: str
    task: Task
    family: str
    image: Image
    parameters: int
    context_length: int
    dtype: Dtype
    source: str
    revision: str
    licence: str
    gated: bool
    memory: Mapping[str, int]
    default_instance_type: str
    supported_instance_types: tuple[str, ...]
    backends: tuple[str, ...]
    config: Mapping[str, Json]
    example_payloads: tuple[ExamplePayload, ...]
    hub_id: str | None = None
    eula: str | None = None
    published: bool = True
    keywords: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in the card's own dtype."""
        return self.memory[self.dtype]

    @property
    def model_prefix(self) -> str:
        """Key prefix of the prepared files in the store; deploys and JumpStart share it."""
        return f"ridgeline/{self.id}/v{self.version}/model/"

    def to_json(self) -> dict[str, Json]:
        """The card as JSON-able values, for the REST API and ``--json``."""
        return {
            "id": self.id,
            "version": self.version,
            "title": self.title,
            "description": self.description,
            "task": self.task,
            "family": self.family,
            "image": self.image,
            "parameters": self.parameters,
            "context_length": self.context_length,
            "dtype": self.dtype,
            "source": self.source,
            "revision": self.revision,
            "hub_id": self.hub_id,
            "sha256": dict(self.sha256),
            "licence": self.licence,
            "gated": self.gated,
            "eula": self.eula,
            "published": self.published,
            "keywords": list(self.keywords),
            "memory": dict(self.memory),
            "default_instance_type": self.default_instance_type,
            "supported_instance_types": list(self.supported_instance_types),
            "backends": list(self.backends),
            "environment": dict(self.environment),
            "sampling": dict(self.sampling),
            "config": dict(self.config),
            "example_payloads": [
                {"name": p.name, "content_type": p.content_type, "body": dict(p.body)}
                for p in self.example_payloads
            ],
        }
