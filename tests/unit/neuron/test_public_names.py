"""Public models by the names they go by: known with their own sizes, or not taken for another."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from single_rows import predicted, value

from ridgeline.errors import NotFound
from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.catalogue import find, published_length
from ridgeline_backends.neuron.commands.models import config_of, encoder_of
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.liveness import core_need

DECODE: Mapping[str, object] = {
    "cat": "llm_decode", "instance": "trn2.48xlarge", "tp": 64, "batch": 1, "seq_len": 2048,
    "framework": "NxD Inference",
}  # fmt: skip
ENCODER: Mapping[str, object] = {
    "cat": "encoder", "instance": "inf2.xlarge", "batch": 1, "seq_len": 128,
    "framework": "PyTorch 2.1",
}  # fmt: skip
IMAGES: Mapping[str, object] = {
    "cat": "vision", "instance": "inf2.xlarge", "batch": 1, "framework": "PyTorch 2.1",
}  # fmt: skip


def billions(model: str) -> float:
    """Of the matrices that a core holds which is alone: of tied ones it has two."""
    config = find(model, "decoders").config
    program = build_decoder(
        config, NeuronConfig(seq_len=128), bucket=128, phase=Phase.TOKEN_GENERATION
    )
    tied = config["vocab_size"] * config["hidden_size"] if "tie_word_embeddings" in config else 0
    return core_need([program], instance("trn2.48xlarge").chip).weights / 2e9 - tied / 1e9


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("mistralai/Mistral-Nemo-Instruct-2407", 12.2), ("microsoft/Phi-3-medium-4k-instruct", 14),
        ("microsoft/Phi-3-small-8k-instruct", 7.4), ("Mistral-Large-Instruct-2407", 122.6),
        ("mistral-large-2407", 122.6), ("bigscience/bloom", 176.2), ("bigscience/bloomz", 176.2),
        ("bloomz-7b1", 7.07), ("CohereForAI/c4ai-command-r-plus", 103.8),
        ("command-r-plus-08-2024", 103.8), ("moonshotai/Kimi-K2-Instruct", 1026),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", 7.6), ("lmsys/vicuna-13b-v1.5", 13.0),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.7), ("DeepSeek-R1-Distill-Qwen-14B", 14.8),
        ("meta-llama/Meta-Llama-3-8B", 8.03), ("Meta Llama 3 70B Instruct", 70.6),
        ("meta-llama/Meta-Llama-3.1-405B", 405.9), ("deepseek-ai/DeepSeek-V3.1", 671),
        ("deepseek-ai/DeepSeek-V2", 236), ("DeepSeek-V2 Lite", 15.7), ("DeepSeek-V2.5", 236),
        ("moonshotai/Kimi-K2.5", 1026), ("zai-org/GLM-4.5", 355), ("GLM-4.6", 355),
        ("GLM-4.7", 355), ("GLM-4.7-Flash", 30), ("microsoft/phi-1.5", 1.42),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", 30.5), ("Qwen3-Omni-30B-A3B", 30.5),
    ],
)  # fmt: skip
def test_a_decoder_has_as_many_parameters_as_its_publisher_says(
    model: str, parameters: float
) -> None:
    assert find(model, "decoders").exact
    assert billions(model) == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize(
    "model", ["Qwen3-Next-80B-A3B-Instruct", "Kimi-K2-Instruct", "Phi-3-medium-4k-instruct"]
)
def test_a_known_decoder_is_no_guess(model: str) -> None:
    assert predicted(DECODE, model=model, dp=1).label != "prior-only"


def test_experts_that_are_not_chosen_are_not_read() -> None:
    dense = value(DECODE, "tpot_p50_ms", model="qwen2.5-72b")
    assert value(DECODE, "tpot_p50_ms", model="Qwen3-Next-80B-A3B-Instruct") < 0.8 * dense


def test_a_decoder_may_have_its_publisher_before_its_name() -> None:
    written = value(DECODE, "tpot_p50_ms", model="meta-llama/Meta-Llama-3-8B", tp=8)
    assert written == value(DECODE, "tpot_p50_ms", model="llama-3-8b", tp=8)
    assert published_length("Meta-Llama-3.1-8B-Instruct") == published_length("llama-3.1-8b")


def test_the_nearest_of_a_model_that_chooses_experts_chooses_too() -> None:
    assert find("Somebodys-90B-A3B", "decoders").name == "qwen3-next-80b-a3b"
    assert find("Somebodys-235B", "decoders").name == "bloom-176b"


def test_an_alias_may_have_its_size_behind_it() -> None:
    for model in ("medalpaca-7b", "bloom-176b", "mistral-nemo-12b-instruct"):
        assert find(model, "decoders").exact


@pytest.mark.parametrize(
    "model", ["bloom-7b", "DeepSeek-R1-Distill-Llama-3B", "gpt-neox-1.3b", "vicuna-33b"]
)
def test_another_size_is_another_model(model: str) -> None:
    assert not find(model, "decoders").exact


@pytest.mark.parametrize(
    "model",
    ["microsoft/deberta-v3-large", "albert-xxlarge-v2", "openai/whisper-small",
     "whisper-large-v3", "answerdotai/ModernBERT-base", "modernbert-large", "ALBERT xlarge v2",
     "google/electra-small-discriminator", "camembert/camembert-large", "DistilBERT"],
)  # fmt: skip
def test_an_encoder_is_predicted_by_its_public_name(model: str) -> None:
    assert value(ENCODER, "lat_p50_ms", model=model) > 0


@pytest.mark.parametrize(
    ("small", "large"),
    [("deberta-v3-base", "deberta-v3-large"), ("albert-base-v2", "albert-xxlarge-v2"),
     ("whisper-small", "whisper-large-v3"), ("ModernBERT-base", "ModernBERT-large")],
)  # fmt: skip
def test_a_larger_encoder_takes_longer(small: str, large: str) -> None:
    times = [value(ENCODER, "lat_p50_ms", model=model) for model in (small, large)]
    assert times[1] > 1.5 * times[0]


@pytest.mark.parametrize(
    "model",
    ["stabilityai/stable-diffusion-2-1", "runwayml/stable-diffusion-v1-5", "stabilityai/sdxl-turbo",
     "google/vit-huge-patch14-224-in21k", "facebook/dinov2-base", "facebook/convnext-tiny-224",
     "ResNet 50", "Stable Diffusion v1.5", "Stable Diffusion v2.1", "SD 2.1", "convnext-tiny",
     "ConvNeXt Base", "ViT-Large", "ViT Base", "deit-small", "DeiT Tiny", "U-Net"],
)  # fmt: skip
def test_a_network_on_images_is_predicted_by_its_public_name(model: str) -> None:
    assert value(IMAGES, "lat_p50_ms", model=model) > 0


def test_a_turbo_takes_one_step() -> None:
    whole, turbo = (
        value(IMAGES, "lat_p50_ms", model=model) for model in ("stable-diffusion-xl", "sdxl-turbo")
    )
    assert turbo < 0.1 * whole
    for model in ("SDXL Turbo", "Stable Diffusion XL Turbo", "sdxl turbo 1.0"):
        assert value(IMAGES, "lat_p50_ms", model=model) == turbo


@pytest.mark.parametrize(
    "model",
    ["facebook/convnext-tiny-384-22k-1k", "google/vit-large-patch16-384", "vit-base-patch8-224"],
)
def test_another_resolution_is_another_network(model: str) -> None:
    with pytest.raises(NotFound):
        find(model, "vision")


def test_a_model_of_sound_is_not_offered_as_one_of_text() -> None:
    with pytest.raises(UnsupportedModel, match="type whisper are neither decoders nor encoders"):
        encoder_of(config_of("whisper-large-v3"))
