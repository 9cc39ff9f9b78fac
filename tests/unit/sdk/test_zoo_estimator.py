"""Training models of the zoo: what the service says of a card becomes a training job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ridgeline.errors import InvalidInput, Unsupported
from ridgeline.session import Session
from ridgeline.zoo_estimator import ZooEstimator

ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"
CARD = {
    "id": "tiny",
    "task": "text-generation",
    "image_uri": "r/djl-inference:1",
    "environment": {"HF_MODEL_ID": "tiny", "OPTION_DTYPE": "bf16"},
    "default_instance_type": "ml.m5.large",
    "training": {
        "image_uri": "r/huggingface-pytorch-training:1",
        "model_uri": "s3://zoo/ridgeline/tiny/v1/model/",
        "source_uri": "s3://zoo/ridgeline/recipes/1/sourcedir.tar.gz",
        "recipes": [
            {"name": "sft", "script": "sft.py", "metrics": {"loss": "loss=(.*)"}},
            {"name": "classify", "script": "classify.py", "metrics": {}},
        ],
    },
}


@pytest.fixture
def zoo(fake: Any, sdk_tools: Any) -> Any:
    fake.rules["GET /api/zoo/tiny"] = sdk_tools.Reply(CARD)
    fake.on("CreateTrainingJob", sdk_tools.Reply({"TrainingJobArn": ARN}))
    return fake


def ended(fake: Any, sdk_tools: Any, **more: Any) -> None:
    artifacts = {"S3ModelArtifacts": "s3://b/out/j/output/model.tar.gz"}
    found = {
        "TrainingJobName": "j",
        "TrainingJobArn": ARN,
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "SecondaryStatusTransitions": [],
        "CreationTime": 1.7e9,
        "ModelArtifacts": artifacts,
        **more,
    }
    fake.on("DescribeTrainingJob", sdk_tools.Reply(found))


def repeat(fake: Any, sdk_tools: Any, **changed: str) -> None:
    """Describe the job that was created last, ended, with some hyperparameters changed."""
    request = fake.requests("CreateTrainingJob")[-1]
    fake.on("ListTags", sdk_tools.Reply({"Tags": request["Tags"]}))
    kept = ("AlgorithmSpecification", "RoleArn", "OutputDataConfig", "ResourceConfig")
    values = {**request["HyperParameters"], **changed}
    ended(fake, sdk_tools, **{key: request[key] for key in kept}, HyperParameters=values)


def test_the_usual_recipe_gets_its_script_its_metrics_and_the_base(
    session: Session, zoo: Any
) -> None:
    estimator = ZooEstimator(
        "tiny", hyperparameters={"epochs": 2}, sagemaker_session=session, max_run=600
    )
    estimator.fit({"training": "s3://b/chats"}, wait=False, job_name="j")
    [request] = zoo.requests("CreateTrainingJob")
    values = request["HyperParameters"]
    assert values["epochs"] == "2"
    assert json.loads(values["sagemaker_program"]) == "sft.py"
    assert json.loads(values["sagemaker_submit_directory"]) == CARD["training"]["source_uri"]
    algorithm = request["AlgorithmSpecification"]
    assert algorithm["TrainingImage"] == "r/huggingface-pytorch-training:1"
    assert algorithm["MetricDefinitions"] == [{"Name": "loss", "Regex": "loss=(.*)"}]
    channels = {
        each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"]
        for each in request["InputDataConfig"]
    }
    assert channels == {"training": "s3://b/chats", "model": CARD["training"]["model_uri"]}
    assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == 600
    assert not zoo.objects


def test_a_base_of_ones_own_is_kept(session: Session, zoo: Any) -> None:
    estimator = ZooEstimator("tiny", sagemaker_session=session)
    estimator.fit({"training": "s3://b/chats", "model": "s3://b/mine/"}, wait=False)
    [request] = zoo.requests("CreateTrainingJob")
    models = [each for each in request["InputDataConfig"] if each["ChannelName"] == "model"]
    assert [each["DataSource"]["S3DataSource"]["S3Uri"] for each in models] == ["s3://b/mine/"]


def test_the_tuned_model_is_served_as_its_base_is(
    session: Session, zoo: Any, sdk_tools: Any
) -> None:
    estimator = ZooEstimator("tiny", sagemaker_session=session)
    estimator.fit("s3://b/chats", wait=False, job_name="j")
    ended(zoo, sdk_tools)
    model = estimator.create_model(env={"OPTION_MAX_MODEL_LEN": "128"})
    assert model.image_uri == "r/djl-inference:1"
    assert model.model_data == "s3://b/out/j/output/model.tar.gz"
    assert model.env == {
        "HF_MODEL_ID": "/opt/ml/model",
        "OPTION_DTYPE": "bf16",
        "OPTION_MAX_MODEL_LEN": "128",
    }


def test_a_classifier_is_served_by_its_framework(
    session: Session, zoo: Any, sdk_tools: Any
) -> None:
    estimator = ZooEstimator("tiny", recipe="classify", sagemaker_session=session)
    estimator.fit("s3://b/topics", wait=False, job_name="j")
    ended(zoo, sdk_tools)
    model = estimator.create_model()
    assert model.image_uri == "r/huggingface-pytorch-inference:1"
    assert model.env == {"HF_TASK": "text-classification"}


def test_what_does_not_suit_is_refused(session: Session, zoo: Any, sdk_tools: Any) -> None:
    with pytest.raises(InvalidInput, match="'stf' does not suit 'tiny'") as caught:
        ZooEstimator("tiny", recipe="stf", sagemaker_session=session)
    assert "'sft'" in caught.value.hint
    training = {**CARD["training"], "recipes": []}
    zoo.rules["GET /api/zoo/tiny"] = sdk_tools.Reply({**CARD, "training": training})
    with pytest.raises(Unsupported, match="No recipe trains 'tiny'"):
        ZooEstimator("tiny", sagemaker_session=session)


def test_an_attached_estimator_serves_and_trains_as_the_one_that_fitted(
    session: Session, zoo: Any, sdk_tools: Any
) -> None:
    given = {"epochs": 2, "method": "full"}
    fitted = ZooEstimator("tiny", hyperparameters=given, sagemaker_session=session)
    fitted.fit("s3://b/chats", wait=False, job_name="j")
    repeat(zoo, sdk_tools)
    attached = ZooEstimator.attach("j", sagemaker_session=session)
    assert isinstance(attached, ZooEstimator)
    assert (attached.model_id, attached.recipe) == ("tiny", "sft")
    model = attached.create_model()
    assert model.image_uri == "r/djl-inference:1"
    assert model.model_data == "s3://b/out/j/output/model.tar.gz"
    assert model.env["HF_MODEL_ID"] == "/opt/ml/model"
    attached.fit("s3://b/chats", wait=False, job_name="j")
    first, second = zoo.requests("CreateTrainingJob")
    assert second == first


def test_an_attached_classifier_is_served_by_its_framework(
    session: Session, zoo: Any, sdk_tools: Any
) -> None:
    fitted = ZooEstimator("tiny", recipe="classify", sagemaker_session=session)
    fitted.fit("s3://b/topics", wait=False, job_name="j")
    repeat(zoo, sdk_tools)
    model = ZooEstimator.attach("j", sagemaker_session=session).create_model()
    assert model.image_uri == "r/huggingface-pytorch-inference:1"


def test_a_job_of_jumpstarts_client_is_attached_with_the_usual_recipe(
    session: Session, zoo: Any, sdk_tools: Any
) -> None:
    ZooEstimator("tiny", sagemaker_session=session).fit("s3://b/chats", wait=False, job_name="j")
    repeat(zoo, sdk_tools, sagemaker_program='"transfer_learning.py"')
    assert ZooEstimator.attach("j", sagemaker_session=session).recipe == "sft"


def test_attach_refuses_a_job_of_no_recipe(session: Session, zoo: Any, sdk_tools: Any) -> None:
    ZooEstimator("tiny", sagemaker_session=session).fit("s3://b/chats", wait=False, job_name="j")
    for changed in (
        {"sagemaker_program": '"train.py"'},
        {"sagemaker_submit_directory": '"s3://b/j/source/sourcedir.tar.gz"'},
    ):
        repeat(zoo, sdk_tools, **changed)
        with pytest.raises(InvalidInput, match="'j' ran no recipe of the zoo") as caught:
            ZooEstimator.attach("j", sagemaker_session=session)
        assert "Estimator.attach(name)" in caught.value.hint


def test_attach_asks_for_the_model_of_a_job_that_does_not_name_it(
    session: Session, zoo: Any, sdk_tools: Any
) -> None:
    ZooEstimator("tiny", sagemaker_session=session).fit("s3://b/chats", wait=False, job_name="j")
    repeat(zoo, sdk_tools)
    zoo.on("ListTags", sdk_tools.Reply({"Tags": []}))
    with pytest.raises(InvalidInput, match="does not say which model") as caught:
        ZooEstimator.attach("j", sagemaker_session=session)
    assert "model_id=" in caught.value.hint
    attached = ZooEstimator.attach("j", sagemaker_session=session, model_id="tiny")
    assert attached.model_id == "tiny"
