from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ridgeline_zoo import Card, load_cards, tuning
from ridgeline_zoo.jumpstart import (
    bucket,
    manifest,
    proprietary_manifest,
    published,
    render,
    spec,
    spec_key,
)

REGION = "eu-central-1"
CARDS = published(load_cards())

# What the SDKs index without a default: a missing one is a KeyError in the user's hands.
MANIFEST_FIELDS = {"model_id", "version", "min_version", "spec_key"}
VARIABLE_FIELDS = {"name", "type", "default", "scope"}
PREDICTOR_FIELDS = {
    "supported_content_types",
    "supported_accept_types",
    "default_content_type",
    "default_accept_type",
}


def test_tests_own_models_are_not_published() -> None:
    assert "tiny-llama-seeded" not in {card.id for card in CARDS}
    assert {"smollm2-135m-instruct", "all-minilm-l6-v2"} <= {card.id for card in CARDS}


def test_a_family_no_engine_runs_is_not_published() -> None:
    strange = replace(CARDS[0], family="mamba")
    assert published([strange]) == ()
    assert manifest([strange]) == []


def test_the_manifest_names_a_spec_for_every_model() -> None:
    entries: list[Any] = manifest(load_cards())
    assert {entry["model_id"] for entry in entries} == {card.id for card in CARDS}
    assert {entry["spec_key"] for entry in entries} == {spec_key(card) for card in CARDS}
    assert all(set(entry) >= MANIFEST_FIELDS for entry in entries)


def test_the_proprietary_manifest_is_never_empty_and_offers_nothing() -> None:
    entries: list[Any] = proprietary_manifest()
    assert len(entries) == 1
    assert set(entries[0]) >= MANIFEST_FIELDS
    assert entries[0]["model_id"] not in {card.id for card in CARDS}
    assert int(entries[0]["min_version"].split(".")[0]) > 1000


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_spec_resolves_to_an_image_and_the_stored_weights(card: Card) -> None:
    document: Any = spec(card, REGION)
    assert document["hosting_artifact_key"] == f"ridgeline/{card.id}/v{card.version}/model/"
    assert document["hosting_artifact_key"] == card.model_prefix
    assert not spec_key(card).startswith(card.model_prefix)
    variants = document["hosting_instance_type_variants"]
    aliases = variants["regional_aliases"][REGION]
    for instance_type in document["supported_inference_instance_types"]:
        family = instance_type.split(".")[1]
        uri = variants["variants"][family]["regional_properties"]["image_uri"]
        image = aliases[uri.removeprefix("$")]
        assert image.startswith(f"763104351884.dkr.ecr.{REGION}.amazonaws.com/djl-inference:")
    assert document["default_inference_instance_type"] in card.supported_instance_types
    assert set(document["predictor_specs"]) == PREDICTOR_FIELDS
    for variable in document["inference_environment_variables"]:
        assert set(variable) >= VARIABLE_FIELDS
    assert document["inference_volume_size"] << 30 > 2 * card.weights_bytes


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_spec_says_how_the_model_is_trained_further(card: Card) -> None:
    document: Any = spec(card, REGION)
    recipes = tuning.recipes_of(card)
    assert document["training_supported"] is bool(recipes)
    if not recipes:
        return
    assert document["training_artifact_key"] == card.model_prefix
    assert document["training_script_key"] == tuning.archive_key()
    variants = document["training_instance_type_variants"]
    aliases = variants["regional_aliases"][REGION]
    assert "ml.inf2.xlarge" in document["supported_inference_instance_types"]
    for instance_type in document["supported_training_instance_types"]:
        assert not instance_type.startswith("ml.inf")
        uri = variants["variants"][instance_type.split(".")[1]]["regional_properties"]["image_uri"]
        assert aliases[uri.removeprefix("$")].endswith(f"/{tuning.IMAGE}")
    defaults = {each["name"]: each["default"] for each in document["hyperparameters"]}
    assert defaults == recipes[0].hyperparameters
    assert {each["Name"] for each in document["metrics"]} == set(recipes[0].metrics)


def test_payloads_are_the_cards_and_say_where_the_prompt_goes() -> None:
    document: Any = spec(load_cards().get("smollm2-135m-instruct"), REGION)
    payloads = document["default_payloads"]
    assert next(iter(payloads)) == "France"
    assert payloads["France"]["prompt_key"] == "inputs"
    assert payloads["Chat"]["body"]["messages"][0]["role"] == "user"
    assert "prompt_key" not in payloads["Chat"]
    embedding: Any = spec(load_cards().get("all-minilm-l6-v2"), REGION)
    body = next(iter(embedding["default_payloads"].values()))["body"]
    assert isinstance(body["inputs"], list)


def test_the_cards_environment_reaches_the_container() -> None:
    card = replace(CARDS[0], environment={"OPTION_MAX_MODEL_LEN": "1024"})
    document: Any = spec(card, REGION)
    variables = {v["name"]: v["default"] for v in document["inference_environment_variables"]}
    assert variables["OPTION_MAX_MODEL_LEN"] == "1024"
    assert variables["HF_MODEL_ID"] == "/opt/ml/model"


def test_what_is_stored_is_the_same_every_time() -> None:
    assert render(manifest(load_cards())) == render(manifest(load_cards()))
    assert json.loads(render(spec(CARDS[0], REGION))) == spec(CARDS[0], REGION)
    assert bucket(REGION) == "jumpstart-cache-prod-eu-central-1"
