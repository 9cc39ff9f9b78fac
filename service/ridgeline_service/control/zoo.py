"""The zoo as the service offers it: cards, and how to create a model from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ridgeline_service.settings import Settings
from ridgeline_zoo import Card, Catalog, tuning

_REGISTRY = "763104351884.dkr.ecr.{region}.amazonaws.com"
IMAGES = {
    "llm": "djl-inference:0.30.0-lmi12.0.0-cpu-full",
    "embedding": "huggingface-tei-cpu:1.7.0-cpu",
}


class Zoo:
    """``cards`` is called at every use, so that a catalogue may change while the service runs."""

    def __init__(self, settings: Settings, cards: Callable[[], Catalog]) -> None:
        self._settings = settings
        self._cards = cards

    def list(self, query: str = "") -> list[dict[str, Any]]:
        found = self._cards().search(query)
        return [self._shown(card) for card in found if card.published or query]

    def show(self, model_id: str) -> dict[str, Any]:
        """The card, the image and the environment of a model made from it.

        Raises UnknownModel with the nearest id. A hub id that a card stands for is also known.
        """
        return self._shown(self._cards().by_source(model_id) or self._cards().get(model_id))

    def _shown(self, card: Card) -> dict[str, Any]:
        registry = _REGISTRY.format(region=self._settings.region)
        return {
            **card.to_json(),
            "image_uri": f"{registry}/{IMAGES[card.image]}",
            "environment": {"HF_MODEL_ID": card.id, **card.environment},
            "training": {
                "image_uri": f"{registry}/{tuning.IMAGE}",
                "model_uri": f"s3://{self._settings.zoo_bucket}/{card.model_prefix}",
                "source_uri": f"s3://{self._settings.zoo_bucket}/{tuning.archive_key()}",
                "recipes": [recipe.to_json() for recipe in tuning.recipes_of(card)],
            },
        }
