"""The catalogue as SageMaker JumpStart serves its own: two manifests and a spec per model.

AWS's SDKs read these from the bucket ``jumpstart-cache-prod-REGION`` by plain S3 calls. Pure
functions from cards to JSON-able values: whoever calls them stores the objects. The fields and
the order in which the SDKs (v2 and v3) read them were taken from recorded calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from ridgeline_zoo import tuning
from ridgeline_zoo.card import Card, ExamplePayload, Json
from ridgeline_zoo.families import FAMILIES

MANIFEST_KEY = "models_manifest.json"
PROPRIETARY_MANIFEST_KEY = "proprietary-sdk-manifest.json"

# The account that AWS publishes its inference images from, in most regions.
IMAGE_ACCOUNT = "763104351884"
_IMAGE = "djl-inference:0.30.0-lmi12.0.0-cu124"
_ALIAS = "llm_ecr_uri_1"
_TRAINING_ALIAS = "train_ecr_uri_1"
# The oldest SDK that knows variants, prefixes as artifacts and everything else used below.
_MIN_SDK_VERSION = "2.189.0"
_TIMEOUT_S = 1200
_INFERENCE_ONLY = "ml.inf"
"""How the names of types begin that nothing is trained on."""


def bucket(region: str) -> str:
    """The bucket the SDKs read, which also holds the prepared weights."""
    return f"jumpstart-cache-prod-{region}"


def published(cards: Iterable[Card]) -> tuple[Card, ...]:
    """The cards that belong in the catalogue: meant for it, and of a family that runs."""
    return tuple(card for card in cards if card.published and card.family in FAMILIES)


def spec_key(card: Card) -> str:
    """Key of the card's spec in the bucket."""
    return f"ridgeline/{card.id}/v{card.version}/spec.json"


def manifest(cards: Iterable[Card]) -> list[Json]:
    """``models_manifest.json``: which models there are, and where their specs lie."""
    return [
        _manifest_entry(card.id, card.version, spec_key(card)) | _keywords(card)
        for card in published(cards)
    ]


def proprietary_manifest() -> list[Json]:
    """``proprietary-sdk-manifest.json``: the same form, for models sold on a marketplace.

    We have none, but the SDKs read the first entry without looking whether there is one. This one
    asks for an SDK that will never exist, so that no list shows it and nothing can deploy it.
    """
    entry = _manifest_entry("ridgeline-has-no-proprietary-models", "1.0.0", "ridgeline/none.json")
    return [entry | {"min_version": "9999.0.0"}]


def spec(card: Card, region: str, account: str = IMAGE_ACCOUNT) -> dict[str, Json]:
    """The spec of one model: image, artifact, environment, instance types, example payloads."""
    image = f"{account}.dkr.ecr.{region}.amazonaws.com/{_IMAGE}"
    environment: list[Json] = [
        _variable("HF_MODEL_ID", "/opt/ml/model"),
        _variable("SAGEMAKER_MODEL_SERVER_WORKERS", "1"),
    ]
    environment += [_variable(name, value) for name, value in sorted(card.environment.items())]
    payloads: dict[str, Json] = {
        payload.name: _payload(payload) for payload in card.example_payloads
    }
    return {
        "model_id": card.id,
        "url": f"https://huggingface.co/{card.hub_id}" if card.hub_id else "",
        "version": card.version,
        "min_sdk_version": _MIN_SDK_VERSION,
        "incremental_training_supported": False,
        "hosting_ecr_specs": {
            "framework": "djl-lmi",
            "framework_version": "0.30.0",
            "py_version": "py311",
        },
        "hosting_artifact_key": card.model_prefix,
        "hosting_script_key": f"ridgeline/{card.id}/v{card.version}/sourcedir.tar.gz",
        "hosting_prepacked_artifact_key": card.model_prefix,
        "hosting_prepacked_artifact_version": card.version,
        "hosting_artifact_s3_data_type": "S3Prefix",
        "hosting_artifact_compression_type": "None",
        "hosting_use_script_uri": False,
        "hosting_instance_type_variants": _variants(card, region, _ALIAS, image),
        "inference_environment_variables": environment,
        "inference_vulnerable": False,
        "inference_dependencies": [],
        "inference_vulnerabilities": [],
        "inference_volume_size": _volume_gib(card),
        "inference_enable_network_isolation": True,
        **_training(card, region, account),
        "training_vulnerable": False,
        "training_dependencies": [],
        "training_vulnerabilities": [],
        "deprecated": False,
        "default_inference_instance_type": card.default_instance_type,
        "supported_inference_instance_types": list(card.supported_instance_types),
        "dynamic_container_deployment_supported": False,
        "model_kwargs": {},
        "deploy_kwargs": {
            "model_data_download_timeout": _TIMEOUT_S,
            "container_startup_health_check_timeout": _TIMEOUT_S,
        },
        "predictor_specs": {
            "supported_content_types": ["application/json"],
            "supported_accept_types": ["application/json"],
            "default_content_type": "application/json",
            "default_accept_type": "application/json",
        },
        "resource_name_base": card.id,
        "default_payloads": payloads,
    }


def _training(card: Card, region: str, account: str) -> dict[str, Json]:
    """How the model is trained further, by the recipe that is usual for its kind."""
    recipes = tuning.recipes_of(card)
    if not recipes:
        return {"training_supported": False, "metrics": []}
    usual = recipes[0]
    image = f"{account}.dkr.ecr.{region}.amazonaws.com/{tuning.IMAGE}"
    types = {str: "text", int: "int", float: "float"}
    hyperparameters: list[Json] = [
        {"name": name, "type": types[type(value)], "default": value, "scope": "algorithm"}
        for name, value in usual.hyperparameters.items()
    ]
    metrics: list[Json] = [{"Name": name, "Regex": text} for name, text in usual.metrics.items()]
    return {
        "training_supported": True,
        "training_ecr_specs": {
            "framework": "huggingface",
            "framework_version": "2.8.0",
            "py_version": "py312",
        },
        "training_artifact_key": card.model_prefix,
        "training_script_key": tuning.archive_key(),
        "training_instance_type_variants": _variants(card, region, _TRAINING_ALIAS, image),
        "training_volume_size": _volume_gib(card),
        # With it the SDKs hand the scripts over in a channel, which the recipes do not need.
        "training_enable_network_isolation": False,
        "default_training_instance_type": card.default_instance_type,
        "supported_training_instance_types": [
            name for name in card.supported_instance_types if not name.startswith(_INFERENCE_ONLY)
        ],
        "hyperparameters": hyperparameters,
        "metrics": metrics,
    }


def _variants(card: Card, region: str, alias: str, image: str) -> Json:
    """One image for every family of instance types that the card supports."""
    families = sorted({name.split(".")[1] for name in card.supported_instance_types})
    variants: dict[str, Json] = {
        family: {"regional_properties": {"image_uri": f"${alias}"}} for family in families
    }
    return {"regional_aliases": {region: {alias: image}}, "variants": variants}


def render(document: list[Json] | dict[str, Json]) -> bytes:
    """The bytes to store: the same for the same cards, so that their ETag is stable."""
    return json.dumps(document, indent=1).encode()


def _manifest_entry(model_id: str, version: str, key: str) -> dict[str, Json]:
    return {
        "model_id": model_id,
        "version": version,
        "min_version": _MIN_SDK_VERSION,
        "spec_key": key,
    }


def _keywords(card: Card) -> dict[str, Json]:
    """The task in JumpStart's own words, and the card's."""
    return {"search_keywords": [card.task.replace("-", " ").title(), *card.keywords]}


def _payload(payload: ExamplePayload) -> dict[str, Json]:
    document: dict[str, Json] = {"content_type": payload.content_type, "body": dict(payload.body)}
    if isinstance(payload.body.get("inputs"), str):
        # Where the SDK puts a prompt of the user's own.
        document["prompt_key"] = "inputs"
    return document


def _variable(name: str, default: str) -> Json:
    return {
        "name": name,
        "type": "text",
        "default": default,
        "scope": "container",
        "required_for_model_class": True,
    }


def _volume_gib(card: Card) -> int:
    """Room for the weights twice over, and for what else a container writes."""
    return max(16, 2 * -(-card.weights_bytes >> 30) + 8)
