"""What the zoo says of its recipes is what their scripts do."""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import fields

import pytest

import classify
import dpo
import pretrain
import sft
from ridgeline_recipes.options import Options, parse
from ridgeline_zoo import load_cards, tuning
from ridgeline_zoo.card import Card

OPTIONS: dict[str, type[Options]] = {
    "sft": sft.SftOptions,
    "dpo": dpo.DpoOptions,
    "pretrain": pretrain.PretrainOptions,
    "classify": classify.ClassifyOptions,
}
LOG = (
    "step=5 of=50 epoch=0.10 loss=1.93878 learning_rate=0.0004 tokens_per_second=66.73\n"
    "training_seconds=208 train_tokens_per_second=68.4 final_loss=0.2\n"
    "heldout_questions=36 heldout_right_before=0 heldout_right=35 heldout_lost=0\n"
    "general_questions=6 general_right_before=5 general_right=4 general_lost=1\n"
    "heldout_margin_before=-3.5 heldout_margin=2e+01 heldout_perplexity_before=9\n"
    "heldout_perplexity=4.5 heldout_accuracy=0.97\n"
)
VALUES = {
    "loss": ["1.93878"],
    "tokens_per_second": ["66.73"],
    "heldout_right": ["35"],
    "general_right": ["4"],
    "general_lost": ["1"],
    "heldout_margin": ["2e+01"],
    "heldout_perplexity": ["4.5"],
    "heldout_accuracy": ["0.97"],
}


@pytest.mark.parametrize("recipe", tuning.recipes(), ids=lambda recipe: recipe.name)
def test_defaults_are_those_of_the_script(recipe: tuning.Recipe) -> None:
    options = parse(OPTIONS[recipe.name], [])
    defaults = {field.name: getattr(options, field.name) for field in fields(options)}
    for name, value in recipe.hyperparameters.items():
        assert value == defaults[name], name
        assert type(value) is type(defaults[name]), name


@pytest.mark.parametrize("recipe", tuning.recipes(), ids=lambda recipe: recipe.name)
def test_metrics_are_found_in_the_log(recipe: tuning.Recipe) -> None:
    for name, regex in recipe.metrics.items():
        assert re.findall(regex, LOG) == VALUES[name]


def test_the_archive_holds_the_scripts_and_what_they_share() -> None:
    with tarfile.open(fileobj=io.BytesIO(tuning.archive())) as tar:
        names = set(tar.getnames())
    assert {recipe.script for recipe in tuning.recipes()} <= names
    assert "ridgeline_recipes/templates/chatml.jinja" in names
    assert {"general.jsonl", "transfer_learning.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("/")]


def test_recipes_suit_the_kind_of_model() -> None:
    def names(card: Card) -> list[str]:
        return [recipe.name for recipe in tuning.recipes_of(card)]

    cards = load_cards()
    assert names(cards.get("smollm2-135m-instruct")) == ["sft", "dpo", "pretrain"]
    assert names(cards.get("all-minilm-l6-v2")) == ["classify"]
