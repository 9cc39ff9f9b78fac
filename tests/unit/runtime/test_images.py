from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.errors import ValidationException
from ridgeline_service.runtime.images import (
    ImageName,
    RefusedImage,
    UnknownImage,
    flavour_of,
    known_repositories,
    resolve,
    runtime_named,
    runtimes,
)
from ridgeline_service.serving.llm.invocations import Flavour

ECR = "763104351884.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("uri", "runtime"),
    [
        (f"{ECR}/djl-inference:0.30.0-lmi12.0.0-cu124", "llm"),
        ("1.dkr.ecr.eu-west-3.amazonaws.com/djl-inference:0.33.0-lmi15.0.0-cu128", "llm"),
        (
            f"{ECR}/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04",
            "llm",
        ),
        ("ghcr.io/huggingface/text-generation-inference:3.0", "llm"),
        ("ghcr.io/huggingface/text-embeddings-inference:cpu-1.5", "llm"),
        ("public.ecr.aws/deep-learning-containers/vllm:0.11-gpu", "llm"),
        (f"{ECR}/djl-inference:0.29.0-neuronx-sdk2.19.1", "llm"),
        (f"{ECR}/huggingface-vllm-inference-neuronx:0.11.0-neuronx-py310-sdk2.26", "llm"),
        ("vllm/vllm-openai", "llm"),
        (f"{ECR}/pytorch-inference:2.6.0-cpu-py312", "pytorch-inference"),
        (f"{ECR}/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker", "pytorch-inference"),
        ("my-registry:5000/mirror/pytorch-inference@sha256:abc", "pytorch-inference"),
        (
            f"{ECR}/huggingface-pytorch-inference:2.6.0-transformers4.49.0-cpu-py312-ubuntu22.04",
            "huggingface-pytorch-inference",
        ),
    ],
)
def test_image_uris_of_the_sdks_resolve(uri: str, runtime: str) -> None:
    assert resolve(uri).name == runtime


@pytest.mark.parametrize(
    ("uri", "flavour"),
    [
        (f"{ECR}/djl-inference:0.30.0-lmi12.0.0-cu124", "djl"),
        ("ghcr.io/huggingface/text-generation-inference:3.0", "tgi"),
        ("ghcr.io/huggingface/text-embeddings-inference:cpu-1.5", "tgi"),
        ("vllm/vllm-openai", "vllm"),
        (f"{ECR}/pytorch-inference:2.6.0-cpu-py312", ""),
    ],
)
def test_the_image_says_how_its_server_words_its_answers(uri: str, flavour: str) -> None:
    assert flavour_of(uri) == flavour


def test_the_model_server_takes_every_flavour_of_the_table() -> None:
    for repository in known_repositories():
        image = repository.replace("*", "x")
        if resolve(image).kind == "llm":
            Flavour(flavour_of(image))


def test_an_unknown_image_names_itself_and_the_known_ones() -> None:
    with pytest.raises(UnknownImage) as caught:
        resolve(f"{ECR}/sagemaker-xgboost:1.7-1")
    assert "sagemaker-xgboost" in caught.value.message
    assert "pytorch-inference" in caught.value.hint
    assert isinstance(caught.value, ValidationException)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        (f"{ECR}/pytorch-inference-neuronx:2.5.1-neuronx-py310-sdk2.21", "Neuron"),
        (f"{ECR}/huggingface-pytorch-inference-neuronx:2.1.2", "Neuron"),
        (f"{ECR}/pytorch-training:2.8.0-cpu-py312", "training image"),
    ],
)
def test_images_that_cannot_run_here_say_why(uri: str, why: str) -> None:
    with pytest.raises(RefusedImage, match=why):
        resolve(uri)


def test_runtimes_are_found_again_by_the_name_that_a_row_keeps() -> None:
    for runtime in runtimes():
        assert runtime_named(runtime.name) is runtime
    with pytest.raises(UnknownImage):
        runtime_named("nope")


def test_only_language_model_servers_run_in_the_services_environment() -> None:
    for runtime in runtimes():
        assert (runtime.kind == "llm") == (not runtime.requirements)
        assert runtime.needs_opt_ml == (runtime.kind != "llm")


@given(
    account=st.from_regex(r"[0-9]{12}", fullmatch=True),
    region=st.sampled_from(["us-east-1", "cn-north-1", "eu-central-2"]),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}", fullmatch=True),
    repository=st.sampled_from([name for name in known_repositories() if "*" not in name]),
)
def test_account_region_and_version_never_matter(
    account: str, region: str, tag: str, repository: str
) -> None:
    if "neuron" in tag:
        return
    uri = f"{account}.dkr.ecr.{region}.amazonaws.com/{repository}:{tag}"
    assert resolve(uri) is resolve(repository)
    assert ImageName.parse(uri).tag == tag
