"""Further training of models of the zoo: a recipe, your data, and the tuned model deployed like its
base. Which recipes there are, and what they are told, the service says; the client only asks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline.errors import InvalidInput, Unsupported, did_you_mean
from ridgeline.estimator import Estimator, described_options
from ridgeline.inputs import Inputs, TrainingInput
from ridgeline.model import Model
from ridgeline.session import Session
from ridgeline.training_job import TrainingJob
from ridgeline.zoo import fetch_card

_MODEL_CHANNEL = "model"
_MODEL_DIR = "/opt/ml/model"
_CLASSIFIES = "classify"
_MODEL_ID = "sagemaker-sdk:jumpstart-model-id"
"""The tag that SageMaker's JumpStart tells a job's model by."""
_USUAL = "transfer_learning.py"


class ZooEstimator(Estimator):
    """Trains the model ``model_id`` of the zoo by a recipe: ``sft`` (chats), ``dpo`` (pairs of
    answers), ``pretrain`` (texts) or ``classify`` (labelled texts); without a name the usual one of
    the model's kind. Hyperparameters are the recipe's.

    Raises NotFound for a model that the zoo has not, Unsupported for one that no recipe suits,
    InvalidInput for a recipe that does not suit it.
    """

    def __init__(
        self,
        model_id: str,
        role: str | None = None,
        recipe: str | None = None,
        instance_type: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        metric_definitions: Sequence[Mapping[str, str]] | None = None,
        base_job_name: str | None = None,
        sagemaker_session: Session | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        **options: Any,
    ) -> None:
        session = sagemaker_session or Session()
        self.card = fetch_card(session, model_id)
        self.model_id = self.card.model_id
        training = self.card.body.get("training") or {}
        chosen = _recipe(self.model_id, training.get("recipes") or [], recipe)
        self.recipe = str(chosen["name"])
        self._model_uri = str(training["model_uri"])
        self._source_uri = str(training["source_uri"])
        if metric_definitions is None:
            metric_definitions = [
                {"Name": name, "Regex": regex} for name, regex in chosen["metrics"].items()
            ]
        super().__init__(
            str(training["image_uri"]),
            role=role,
            instance_type=instance_type,
            hyperparameters=hyperparameters,
            metric_definitions=metric_definitions,
            base_job_name=base_job_name or f"{self.model_id}-{self.recipe}",
            sagemaker_session=session,
            tags=[*(tags or ()), {"Key": _MODEL_ID, "Value": self.model_id}],
            entry_point=str(chosen["script"]),
            **options,
        )

    def __repr__(self) -> str:
        return f"ZooEstimator({self.model_id!r}, recipe={self.recipe!r})"

    @classmethod
    def attach(
        cls,
        training_job_name: str,
        sagemaker_session: Session | None = None,
        *,
        model_id: str | None = None,
    ) -> ZooEstimator:
        """The estimator of a job of a recipe. ``model_id`` is needed for a job that does not say
        what it trained. Raises NotFound if there is no such job, InvalidInput if it is another's.
        """
        session = sagemaker_session or Session()
        job = TrainingJob(training_job_name, session)
        found = job.describe()
        card = fetch_card(session, model_id or _trained_model(session, found))
        options = described_options(found)
        values = {name: _decoded(text) for name, text in options.pop("hyperparameters").items()}
        estimator = cls(
            card.model_id,
            recipe=_trained_recipe(card.body.get("training") or {}, found),
            hyperparameters=values,
            sagemaker_session=session,
            **options,
        )
        estimator.latest_training_job = job
        return estimator

    def create_model(
        self,
        entry_point: str | None = None,
        source_dir: str | os.PathLike[str] | None = None,
        image_uri: str | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Model:
        """The tuned model, to be served as its base is: with the base's image and environment. A
        classifier is served by the inference image of its framework."""
        if self.recipe == _CLASSIFIES or entry_point is not None:
            own = {} if entry_point is not None else {"HF_TASK": "text-classification"}
            return super().create_model(
                entry_point, source_dir, image_uri, name, {**own, **(env or {})}
            )
        return Model(
            image_uri or self.card.image_uri,
            self.model_data,
            role=self.role,
            name=name,
            env={**self.card.environment, "HF_MODEL_ID": _MODEL_DIR, **(env or {})},
            sagemaker_session=self.sagemaker_session,
        )

    def training_request(self, name: str, inputs: Inputs) -> dict[str, Any]:
        request = super().training_request(name, inputs)
        given = request.setdefault("InputDataConfig", [])
        if all(channel["ChannelName"] != _MODEL_CHANNEL for channel in given):
            base = TrainingInput(self._model_uri)
            given.append(base.request(_MODEL_CHANNEL, self._model_uri))
        return request

    def _upload_source(self, name: str) -> str:
        """The recipes lie in the zoo's bucket already."""
        return self._source_uri


def _trained_model(session: Session, found: Mapping[str, Any]) -> str:
    """The model that a job's tag names."""
    with session.call():
        answer = session.sagemaker_client.list_tags(ResourceArn=found["TrainingJobArn"])
    tags = {tag["Key"]: tag["Value"] for tag in answer.get("Tags") or ()}
    if _MODEL_ID not in tags:
        raise InvalidInput(
            f"Training job {found['TrainingJobName']!r} does not say which model of the zoo it "
            "trained.",
            hint="ZooEstimator.attach(name, model_id=...) says it for a job of a recipe; "
            "Estimator.attach(name) takes any job.",
        )
    return str(tags[_MODEL_ID])


def _trained_recipe(training: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The recipe that a job ran, by its script; None for the usual one of the model."""
    values = {name: _decoded(text) for name, text in (found.get("HyperParameters") or {}).items()}
    script = values.get("sagemaker_program")
    names = {recipe["script"]: str(recipe["name"]) for recipe in training.get("recipes") or ()}
    folder, given = (
        str(uri).rpartition("/")[0].rpartition("/")[0]  # what follows tells versions apart
        for uri in (training.get("source_uri"), values.get("sagemaker_submit_directory"))
    )
    if folder != given or script not in (*names, _USUAL):
        raise InvalidInput(
            f"Training job {found['TrainingJobName']!r} ran no recipe of the zoo.",
            hint="Estimator.attach(name) takes any job.",
        )
    return names.get(script)


def _decoded(text: str) -> Any:
    """A hyperparameter as it was given: in script mode jobs hold JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _recipe(
    model_id: str, offered: Sequence[Mapping[str, Any]], wanted: str | None
) -> Mapping[str, Any]:
    if not offered:
        raise Unsupported(
            f"No recipe trains {model_id!r}.",
            hint="Write a script of your own: HuggingFace('train.py', source_dir=...).",
        )
    if wanted is None:
        return offered[0]
    names = [str(recipe["name"]) for recipe in offered]
    if wanted not in names:
        raise InvalidInput(
            f"Recipe {wanted!r} does not suit {model_id!r}.",
            hint=did_you_mean(wanted, names),
        )
    return offered[names.index(wanted)]
