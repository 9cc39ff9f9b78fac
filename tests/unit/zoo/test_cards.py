from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_zoo import Card, load_cards
from ridgeline_zoo.card import BYTES_PER_PARAMETER
from ridgeline_zoo.errors import CardInvalid, UnknownModel
from ridgeline_zoo.families import parameter_count
from ridgeline_zoo.schema import parse_card

CARDS = list(load_cards())
TEXT = (
    Path(__file__).parents[3] / "model_zoo/ridgeline_zoo/cards/smollm2-135m-instruct.yaml"
).read_text(encoding="utf-8")

# Totals that the hub reports for the published safetensors.
PUBLISHED_PARAMETERS = {
    "smollm2-135m-instruct": 134_515_008,
    "smollm2-360m-instruct": 361_821_120,
    "smollm2-1-7b-instruct": 1_711_376_384,
    "tinyllama-1-1b-chat-v1-0": 1_100_048_384,
    "llama-3-2-1b-instruct": 1_235_814_400,
    "llama-3-1-8b-instruct": 8_030_261_248,
    "mistral-7b-instruct-v0-3": 7_248_023_552,
    "bge-small-en-v1-5": 33_360_000,
}
MEMORY_GIB = {"ml.m5.large": 8, "ml.m5.xlarge": 16, "ml.m5.2xlarge": 32}


def problems_of(text: str) -> str:
    with pytest.raises(CardInvalid) as caught:
        parse_card(text, "a.yaml")
    assert "a.yaml" in caught.value.message
    return "\n".join(caught.value.problems)


def line_of(text: str, start: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(start))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_figures_follow_from_the_config(card: Card) -> None:
    assert card.parameters == parameter_count(card.config)
    assert card.memory == {d: card.parameters * w for d, w in BYTES_PER_PARAMETER.items()}
    assert card.parameters == PUBLISHED_PARAMETERS.get(card.id, card.parameters)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_weights_fit_the_default_instance_with_room_to_work(card: Card) -> None:
    assert card.weights_bytes * 1.3 < MEMORY_GIB[card.default_instance_type] << 30


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_hub_cards_claim_no_hash_and_no_revision_nobody_looked_up(card: Card) -> None:
    if card.source.startswith("hf://"):
        assert card.revision == "main"
        assert not card.sha256
        assert card.source == f"hf://{card.hub_id}"
    if card.source.startswith("wheel://"):
        assert list(card.sha256) == [name for name in card.sha256 if name.endswith(".whl")]
        assert card.sha256


def test_the_zoo_holds_what_is_promised() -> None:
    ids = {card.id for card in CARDS}
    assert {"smollm2-135m-instruct", "all-minilm-l6-v2", "tiny-llama-seeded"} <= ids
    assert len([card for card in CARDS if card.source.startswith("hf://")]) >= 6
    assert any(card.gated for card in CARDS)
    smol = load_cards().get("smollm2-135m-instruct")
    assert (smol.dtype, smol.default_instance_type) == ("bf16", "ml.m5.large")


def test_a_typo_gets_an_offer() -> None:
    with pytest.raises(UnknownModel, match="smolm2") as caught:
        load_cards().get("smolm2-135m-instruct")
    assert "'smollm2-135m-instruct'" in caught.value.hint


def test_dots_may_stand_for_dashes() -> None:
    assert load_cards().get("Llama-3.2-1B-Instruct").id == "llama-3-2-1b-instruct"


def test_a_hub_id_finds_its_card_whatever_the_source() -> None:
    catalog = load_cards()
    found = catalog.by_source("huggingfacetb/SmolLM2-135M-Instruct")
    assert found is not None
    assert found.id == "smollm2-135m-instruct"
    assert catalog.by_source("org/unknown") is None


def test_search_takes_every_word() -> None:
    catalog = load_cards()
    assert {c.id for c in catalog.search("embedding bge")} == {"bge-small-en-v1-5"}
    assert catalog.search("smollm2")[0].id.startswith("smollm2")
    assert not catalog.search("smollm2 nonsense")
    assert len(catalog.search()) == len(catalog)


def test_a_card_of_ones_own_joins_and_replaces(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT.replace("id: smollm2-135m", "id: mine-135m"))
    (tmp_path / "other.yaml").write_text(TEXT.replace("version: 1.0.0", "version: 2.0.0"))
    catalog = load_cards([tmp_path])
    assert catalog.get("mine-135m-instruct").version == "1.0.0"
    assert catalog.get("smollm2-135m-instruct").version == "2.0.0"
    assert len(catalog) == len(CARDS) + 1


def test_one_folder_may_not_name_an_id_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    (tmp_path / "b.yaml").write_text(TEXT)
    with pytest.raises(CardInvalid, match=r"(?s)b\.yaml.*already"):
        load_cards([tmp_path])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardInvalid, match="nowhere"):
        load_cards([tmp_path / "nowhere"])


def test_cards_cannot_be_changed() -> None:
    card = CARDS[0]
    with pytest.raises(TypeError):
        card.config["hidden_size"] = 1  # type: ignore[index]


def test_an_unknown_field_gets_its_line_and_an_offer() -> None:
    text = TEXT.replace("licence:", "license:")
    found = problems_of(text)
    assert f"line {line_of(text, 'license:')}: license: unknown field" in found
    assert "'licence'" in found
    assert "licence: this field is required" in found


def test_an_unknown_field_inside_a_payload_is_found() -> None:
    found = problems_of(TEXT.replace("    body:", "    bdy:", 1))
    assert "example_payloads.0.bdy: unknown field. Did you mean 'body'?" in found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version: 1.0.0", "version: 1.0", "version: Input should be a valid string"),
        ("task: text-generation", "task: translation", "'text-embedding' or 'text-ranking'"),
        ("parameters: 134515008", "parameters: 135000000", "config gives 134515008"),
        ("memory: {bf16: 269030016", "memory: {bf16: 269030017", "'bf16': 269030016"),
        ("source: wheel://", "source: whel://", "Did you mean 'wheel'?"),
        ("==0.1.2/", "/", "wheel://NAME==VERSION"),
        ("default_instance_type: ml.m5.large", "default_instance_type: ml.m9.large", "among"),
        ("family: llama", "family: gpt2", "model_type"),
        ("image: llm", "image: embedding", "does not serve"),
        ("licence: apache-2.0", "licence: apache-2.0\ngated: true", "eula"),
        ("context_length: 8192", "context_length: 9000", "max_position_embeddings 8192"),
        ("  model_type: llama", "  model_type: gpt5", "gpt5"),
        ("id: smollm2-135m-instruct", "id: Smol_LM", "id: "),
        ("bcc81830d10ce7d9", "xyz", "64"),
    ],
)
def test_each_fault_is_named_with_its_line(old: str, new: str, says: str) -> None:
    assert old in TEXT
    found = problems_of(TEXT.replace(old, new, 1))
    assert says in found
    assert "line " in found


def test_a_field_given_twice_is_refused() -> None:
    found = problems_of(TEXT + "version: 2.0.0\n")
    assert "version is given twice" in found


def test_broken_yaml_is_named_with_its_line() -> None:
    assert "line 2" in problems_of("id: a\nversion: [1}\n")


@pytest.mark.parametrize("text", ["", "just words", "- a list"])
def test_what_is_no_card_is_refused(text: str) -> None:
    assert "mapping" in problems_of(text)


REQUIRED = ["id", "version", "title", "source", "parameters", "memory", "backends", "config"]


@settings(deadline=None)
@given(st.sets(st.sampled_from(REQUIRED), min_size=1))
def test_every_missing_field_is_reported_at_once(missing: set[str]) -> None:
    document = {k: v for k, v in yaml.safe_load(TEXT).items() if k not in missing}
    found = problems_of(yaml.safe_dump(document))
    assert {name for name in REQUIRED if f"{name}: this field is required" in found} == missing


def test_to_json_is_json(tmp_path: Path) -> None:
    import json

    for card in CARDS:
        assert json.loads(json.dumps(card.to_json()))["id"] == card.id


@pytest.mark.parametrize("wanted", ["smollm2", "smolm2", "SmolLM2.1"])
def test_an_unfinished_id_is_offered_the_ids_that_begin_with_it(wanted: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        load_cards().get(wanted)

    offered = [part for part in caught.value.hint.split("'") if part.startswith("smollm2-")]
    assert 1 <= len(offered) <= 3
    assert all(load_cards().get(model_id) for model_id in offered)


def test_the_models_that_are_listed_for_an_unknown_name_are_those_to_choose_from() -> None:
    with pytest.raises(UnknownModel) as caught:
        load_cards().get("zzzzzz")
    assert "smollm2-135m-instruct" in caught.value.hint
    assert "tiny-llama-seeded" not in caught.value.hint
