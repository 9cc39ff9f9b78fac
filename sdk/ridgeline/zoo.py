"""Models of the service's zoo: found by id, deployed without knowing an image.

What a card means (image, environment, instance type) the service says; the client only asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.errors import NotFound
from ridgeline.model import Model
from ridgeline.session import Session


@dataclass(frozen=True)
class ZooCard:
    """What the client needs of a card. ``body`` is all that the service said."""

    model_id: str
    image_uri: str
    environment: Mapping[str, str]
    default_instance_type: str
    task: str
    body: Mapping[str, Any]


class ZooModel(Model):
    """The model ``model_id`` of the zoo; ``env`` adds to the card's environment and outranks it.

    Raises NotFound, with the nearest known id, if the zoo has no such model.
    """

    def __init__(
        self,
        model_id: str,
        role: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        sagemaker_session: Session | None = None,
    ) -> None:
        session = sagemaker_session or Session()
        self.card = fetch_card(session, model_id)
        self.model_id = self.card.model_id
        super().__init__(
            image_uri=self.card.image_uri,
            role=role,
            env={**self.card.environment, **(env or {})},
            name=name,
            sagemaker_session=session,
        )

    def __repr__(self) -> str:
        return f"ZooModel({self.model_id!r})"

    @property
    def default_instance_type(self) -> str:
        return self.card.default_instance_type or super().default_instance_type

    def _base_name(self) -> str:
        return self.model_id


def fetch_card(session: Session, model_id: str) -> ZooCard:
    """``GET /api/zoo/ID``; ``org/name`` finds the card that stands for that model of the hub.

    Raises NotFound if there is no such model.
    """
    if "/" in model_id:
        model_id = _id_of_hub_model(session, model_id)
    body = session.api.get("zoo", model_id)
    card = body["card"] if isinstance(body.get("card"), dict) else body
    return ZooCard(
        model_id=str(card.get("id") or model_id),
        image_uri=str(body.get("image_uri") or card.get("image_uri") or ""),
        environment={
            str(name): str(value)
            for name, value in (body.get("environment") or card.get("environment") or {}).items()
        },
        default_instance_type=str(card.get("default_instance_type") or ""),
        task=str(card.get("task") or ""),
        body=body,
    )


def _id_of_hub_model(session: Session, hub_id: str) -> str:
    for card in list_cards(session):
        if card.get("hub_id") == hub_id:
            return str(card["id"])
    raise NotFound(
        f"No card of the zoo stands for {hub_id!r}.",
        hint="`ridgeline zoo ls` shows what there is; `ridgeline deploy` takes ids of the hub as "
        "well, and OwnModel weights of your own.",
    )


def list_cards(session: Session, query: str | None = None) -> list[Mapping[str, Any]]:
    """``GET /api/zoo``: the cards of the zoo, those that match ``query`` if one is given."""
    body = session.api.get("zoo", q=query)
    if isinstance(body, dict):
        body = next((value for value in body.values() if isinstance(value, list)), [])
    return list(body)
