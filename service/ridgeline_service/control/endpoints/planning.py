"""From an endpoint config to a deployment: models copied, images resolved, the impossible refused.

Everything that can be known before a process starts is refused here, with numbers: unknown images
and models, accelerators that nobody simulates, more memory than the instance type or this machine
has, more replicas than may run. Starts nothing and reads no S3.

Declared memory: a model of the zoo declares its weights and a working set, a serverless variant
its MemorySizeInMB, a container with RIDGELINE_MEMORY_MB that; anything else a default. It is
bounded by the instance type's memory, which is a profile and reserves nothing. A replica may use
what was declared for it by name (serverless, RIDGELINE_MEMORY_MB), else its instance type's memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.placement import executes
from ridgeline_service.control.models import containers_of
from ridgeline_service.errors import ResourceLimitExceeded, ValidationException
from ridgeline_service.placement.machine import GIB, Machine, in_gib
from ridgeline_service.placement.profiles import InstanceType, instance_type
from ridgeline_service.runtime.images import Runtime, resolve
from ridgeline_service.settings import Settings
from ridgeline_service.store.records import ContainerSpec, StoredRequest, VariantSpec
from ridgeline_zoo import Card, Catalog

MIB = 1 << 20
LLM_WORKING_SET = 1 * GIB
FRAMEWORK_MEMORY = 1 * GIB
UNKNOWN_LLM_MEMORY = 2 * GIB
DEFAULT_STARTUP_TIMEOUT_S = 900.0
DEFAULT_DOWNLOAD_TIMEOUT_S = 1800.0
SERVERLESS = "serverless"

MODEL_ID_VARIABLES = ("HF_MODEL_ID", "OPTION_MODEL_ID", "SM_VLLM_MODEL", "MODEL_ID")
MEMORY_VARIABLE = "RIDGELINE_MEMORY_MB"
MODEL_DIR = "/opt/ml/model"

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")


@dataclass(frozen=True)
class Plan:
    """What a deployment will run, and what the user should be warned of."""

    variants: tuple[VariantSpec, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(variant.warning for variant in self.variants if variant.warning)


class Planner:
    """Resolves configs against the images, the zoo and this machine."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        cards: Callable[[], Catalog],
        sandbox_problem: Callable[[], str],
    ) -> None:
        """``sandbox_problem`` says why user code cannot be confined here, or nothing."""
        self._settings = settings
        self._machine = machine
        self._cards = cards
        self._sandbox_problem = sandbox_problem

    def plan(
        self,
        config: StoredRequest,
        models: Mapping[str, StoredRequest],
        *,
        beside: Sequence[VariantSpec] = (),
    ) -> Plan:
        """``models`` by the names the config uses; ``beside`` are the variants of the deployment
        that serves until this one is ready.

        Raises ValidationException or ResourceLimitExceeded for what can never run here.
        """
        variants = []
        for request in config.request["ProductionVariants"]:
            model = models[request["ModelName"]]
            variants.append(self._variant(request, model))
        plan = Plan(tuple(variants))
        self.check_total(plan.variants, beside)
        return plan

    def _variant(self, request: Mapping[str, Any], model: StoredRequest) -> VariantSpec:
        name = request["VariantName"]
        container = self._container(model)
        serverless = request.get("ServerlessConfig")
        card = self._card(container)
        if serverless is None:
            profile = instance_type(request["InstanceType"])
            warning = self._check_accelerator(name, profile, container.image)
            memory = self._declared(container, card, profile, model.name)
            limit = memory if MEMORY_VARIABLE in container.environment else profile.memory_bytes
            count = int(request["InitialInstanceCount"])
            type_name = profile.name
        else:
            memory = limit = int(serverless["MemorySizeInMB"]) * MIB
            count, type_name, warning = 1, SERVERLESS, ""
        if memory > self._machine.memory_bytes:
            raise ValidationException(
                f"Variant {name!r} can never run here: a replica of model {model.name!r} needs "
                f"{in_gib(memory)} and this machine has {in_gib(self._machine.memory_bytes)} "
                "for replicas.",
                hint="Choose a smaller model, or run the service on a larger machine.",
            )
        return VariantSpec(
            name=name,
            model_name=model.name,
            weight=float(request.get("InitialVariantWeight", 1.0)),
            count=count,
            deployed_count=count,
            instance_type=type_name,
            memory_bytes=memory,
            memory_limit_bytes=limit,
            startup_timeout_s=float(
                request.get(
                    "ContainerStartupHealthCheckTimeoutInSeconds", DEFAULT_STARTUP_TIMEOUT_S
                )
            ),
            download_timeout_s=float(
                request.get("ModelDataDownloadTimeoutInSeconds", DEFAULT_DOWNLOAD_TIMEOUT_S)
            ),
            container=container,
            serverless=dict(serverless) if serverless is not None else None,
            zoo_id=card.id if card is not None else "",
            warning=warning,
        )

    def _container(self, model: StoredRequest) -> ContainerSpec:
        containers = containers_of(model.request)
        if len(containers) != 1:
            raise ValidationException(
                f"Model {model.name!r} has {len(containers)} containers; an inference pipeline "
                "cannot run here. Deploy one container an endpoint."
            )
        raw = containers[0]
        if raw.get("Mode") == "MultiModel":
            raise ValidationException(
                f"Model {model.name!r} has Mode MultiModel, which cannot run here.",
                hint="Deploy each model as an endpoint or a variant of its own.",
            )
        if not raw.get("Image"):
            raise ValidationException(
                f"Model {model.name!r} names a model package and no Image; model packages cannot "
                "be deployed here. Create the model with an Image."
            )
        runtime = resolve(raw["Image"])
        uri, kind = _data_of(raw)
        container = ContainerSpec(
            image=raw["Image"],
            runtime=runtime.name,
            environment={**(raw.get("Environment") or {})},
            data_uri=uri,
            data_kind=kind,
            network=not model.request.get("EnableNetworkIsolation", False),
        )
        _check_data(container, runtime, model.name)
        if runtime.needs_opt_ml and self._sandbox_problem():
            raise ValidationException(
                f"Model {model.name!r} runs user code, and this machine cannot give it an "
                f"/opt/ml of its own ({self._sandbox_problem()}).",
                hint="Install bubblewrap, or allow user namespaces; see `ridgeline doctor`.",
            )
        return container

    def _card(self, container: ContainerSpec) -> Card | None:
        """The zoo's card for what the container serves. Raises for a name that means nothing."""
        found = zoo_id_in(container.data_uri, self._settings.zoo_bucket)
        if found is not None:
            return self._known(found)
        model_id = model_id_of(container.environment)
        if model_id is None or is_placed(model_id):
            return None
        card = next((card for card in self._cards() if card.id == model_id), None)
        card = card or self._cards().by_source(model_id)
        if card is not None or (resolve(container.image).kind != "llm" and container.data_uri):
            return card
        if is_hub_id(model_id):
            return None
        return self._known(model_id)

    def _known(self, model_id: str) -> Card:
        try:
            return self._cards().get(model_id)
        except NotFound as error:
            raise ValidationException(
                f"HF_MODEL_ID {model_id!r} is no model of the zoo, no hub id (org/name), no S3 "
                f"URI and not {MODEL_DIR}.",
                hint=error.hint,
            ) from error

    def _check_accelerator(self, variant: str, profile: InstanceType, image: str) -> str:
        """A warning, or nothing. Raises for what is refused."""
        accelerator = profile.accelerator
        if accelerator is None:
            return ""
        if accelerator.kind == "gpu" and self._machine.gpus:
            count, here = accelerator.count or 1, self._machine.gpus
            if count <= here:
                return ""
            return (
                f"{profile.name} has {count} {accelerator.name} and this machine {here} GPUs - "
                f"variant {variant} runs on those"
            )
        if accelerator.kind == "neuron":
            if resolve(image).kind != "llm":
                raise ValidationException(
                    f"Variant {variant!r}: on {profile.name} this service runs language models "
                    f"alone, on simulated cores, and {image} is no server of such.",
                    hint="Choose a CPU type such as ml.m5.xlarge for this container.",
                )
            reason = executes(profile.name)
            if reason:
                raise ValidationException(
                    f"Variant {variant!r}: {reason}.",
                    hint="Choose ml.inf2.xlarge, or a CPU type such as ml.m5.xlarge.",
                )
            return (
                f"{profile.name} is simulated - variant {variant} computes on the CPU what its "
                "cores would, and its times are predicted"
            )
        if self._settings.strict_instance_types:
            raise ValidationException(
                f"Variant {variant!r}: {profile.name} has {accelerator.name} accelerators and "
                "this machine has none.",
                hint="Choose a CPU type, or turn strict_instance_types off in settings.json.",
            )
        return f"{profile.name} has no {accelerator.name} here - variant {variant} runs on the CPU"

    def _declared(
        self,
        container: ContainerSpec,
        card: Card | None,
        profile: InstanceType,
        model: str,
    ) -> int:
        given = container.environment.get(MEMORY_VARIABLE)
        if given is not None:
            if not given.isdigit() or int(given) < 1:
                raise ValidationException(
                    f"{MEMORY_VARIABLE} of model {model!r} is {given!r}; it is a number of MiB."
                )
            needed = int(given) * MIB
        elif card is not None:
            needed = card.weights_bytes + LLM_WORKING_SET
        elif resolve(container.image).kind == "llm":
            return min(UNKNOWN_LLM_MEMORY, profile.memory_bytes)
        else:
            return min(FRAMEWORK_MEMORY, profile.memory_bytes)
        if needed > profile.memory_bytes:
            by = " by the usual ratio of its family" if profile.derived else ""
            raise ValidationException(
                f"A replica of model {model!r} needs {in_gib(needed)} and {profile.name} has "
                f"{in_gib(profile.memory_bytes)}{by}.",
                hint=f"Choose an instance type with at least {in_gib(needed)}.",
            )
        return needed

    def check_total(
        self, variants: Sequence[VariantSpec], beside: Sequence[VariantSpec] = ()
    ) -> None:
        """Raises ResourceLimitExceeded if these can never run together."""
        count, memory = _needs(variants)
        serving, held = _needs(beside)
        limit, room = self._settings.max_instances, self._machine.memory_bytes
        during = f" beside the {serving} that serve until then" if serving else ""
        if count + serving > limit:
            raise ResourceLimitExceeded(
                f"The deployment needs {count} running instances{during}; this service runs at "
                f"most {limit}.",
                hint="Lower the instance counts, or raise max_instances in settings.json.",
            )
        if memory + held > room:
            also = f" beside the {in_gib(held)} of those that serve until then" if held else ""
            raise ResourceLimitExceeded(
                f"The deployment can never run here: its {count} replicas need {in_gib(memory)}"
                f"{also}, and this machine has {in_gib(room)} for replicas.",
                hint="Lower the instance counts, or choose a smaller model.",
            )


def _needs(variants: Sequence[VariantSpec]) -> tuple[int, int]:
    """Replicas, and the bytes they declare together."""
    count = sum(variant.count for variant in variants)
    return count, sum(variant.count * variant.memory_bytes for variant in variants)


def model_id_of(environment: Mapping[str, str]) -> str | None:
    """The model that an LLM container is told to serve, if its environment tells."""
    return next((environment[name] for name in MODEL_ID_VARIABLES if environment.get(name)), None)


def is_placed(model_id: str) -> bool:
    """Whether the id names a place (a path in the container, an S3 URI) and no model."""
    return model_id.startswith(("/", "s3://"))


def is_hub_id(model_id: str) -> bool:
    """Whether it is written as the hub's ids are: org/name, with or without a revision."""
    return _HUB_ID.match(model_id) is not None


def zoo_id_in(uri: str, zoo_bucket: str) -> str | None:
    """The card whose prepared weights lie at this URI, by the layout of the zoo's bucket."""
    match = re.fullmatch(rf"s3://{re.escape(zoo_bucket)}/ridgeline/([^/]+)/v[^/]+/model/?", uri)
    return match.group(1) if match else None


def _data_of(container: Mapping[str, Any]) -> tuple[str, str]:
    """(URI, kind) of the model data: see ContainerSpec."""
    if container.get("ModelDataUrl"):
        return container["ModelDataUrl"], "archive"
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source is None:
        return "", ""
    if source["CompressionType"] == "Gzip":
        return source["S3Uri"], "archive"
    return source["S3Uri"], "prefix" if source["S3DataType"] == "S3Prefix" else "object"


def _check_data(container: ContainerSpec, runtime: Runtime, model: str) -> None:
    if container.data_uri and not container.data_uri.startswith("s3://"):
        raise ValidationException(
            f"Model data of model {model!r} is {container.data_uri!r}, which is no S3 URI."
        )
    if container.data_uri:
        return
    model_id = model_id_of(container.environment)
    if model_id is not None and model_id.startswith("/"):
        raise ValidationException(
            f"Model {model!r} serves {model_id} and has neither ModelDataUrl nor ModelDataSource, "
            "so that nothing would lie there."
        )
    if runtime.kind == "llm" and model_id is None:
        raise ValidationException(
            f"Model {model!r} names no model to serve: set HF_MODEL_ID in its Environment, or give "
            "ModelDataUrl or ModelDataSource."
        )
