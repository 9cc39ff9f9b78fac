"""Config.json of models that are no decoders: read as transformers and diffusers write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import typer
from single_rows import predicted, refusal
from typer.testing import CliRunner

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.encoder_decoder import (
    encoder_decoder_programs,
)
from ridgeline_backends.neuron.calibration.workloads.vision import vision_programs
from ridgeline_backends.neuron.commands.plan import plan
from ridgeline_backends.neuron.program import BufferKind, Program

Settings = Mapping[str, object]
ON_INF2: Settings = {"id": "X", "model": "mine", "instance": "inf2.xlarge", "batch": 1}
IMAGE: Settings = {**ON_INF2, "cat": "vision"}
TEXT: Settings = {**ON_INF2, "cat": "llm_encdec", "input_len": 64, "output_len": 32}
MEMORY: Settings = {**ON_INF2, "cat": "memory"}

BART: Settings = {
    "model_type": "bart", "is_encoder_decoder": True, "d_model": 1024, "encoder_layers": 12,
    "decoder_layers": 12, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "vocab_size": 50265,
}  # fmt: skip
WHISPER: Settings = {
    **BART, "model_type": "whisper", "vocab_size": 51865, "max_source_positions": 1500,
    "num_mel_bins": 80,
}  # fmt: skip
RESNET_50: Settings = {
    "model_type": "resnet", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048],
    "layer_type": "bottleneck", "embedding_size": 64, "num_channels": 3,
}  # fmt: skip
RESNET_18: Settings = {
    **RESNET_50, "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic",
}  # fmt: skip
CONVNEXT: Settings = {
    "model_type": "convnext", "depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768],
    "patch_size": 4, "num_stages": 4,
}  # fmt: skip
DINO: Settings = {
    "model_type": "dinov2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "mlp_ratio": 4, "patch_size": 14, "image_size": 518,
}  # fmt: skip
GATED_DINO: Settings = {**DINO, "use_swiglu_ffn": True}
CLIP: Settings = {
    "model_type": "clip", "vision_config": {"patch_size": 32}, "text_config": {"hidden_size": 512},
}  # fmt: skip
SD_1_5: Settings = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2, "attention_head_dim": 8, "cross_attention_dim": 768, "in_channels": 4,
    "sample_size": 64, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
}  # fmt: skip
SD_2_1: Settings = {
    **SD_1_5, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96,
}  # fmt: skip
SD_XL: Settings = {
    **SD_1_5, "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048, "sample_size": 128, "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
}  # fmt: skip
PLAIN_SD_1_5: Settings = {
    "block_out_channels": [320, 640, 1280, 1280], "depths": [1, 1, 1, 0], "head_dim": 40,
    "cross_attention_dim": 768, "image": 512,
}  # fmt: skip
PLAIN_VIT: Settings = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "patch": 16, "image": 224,
}  # fmt: skip
BERT: Settings = {
    "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "vocab_size": 30522,
}  # fmt: skip


def weights(programs: Iterable[Program]) -> int:
    """Numbers of all matrices and vectors but a head's; what two programs share counts once."""
    found = {
        (section.name, one.name, one.shape): one.elements * section.repeats
        for program in programs
        for one, section in program.buffers(BufferKind.WEIGHT)
        if section.name != "head"
    }
    return sum(found.values())


def made(config: Settings) -> int:
    """Parameters as transformers makes them."""
    kind = str(config["model_type"])
    settings = transformers.CONFIG_MAPPING[kind](
        **{name: value for name, value in config.items() if name != "model_type"}
    )
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(settings)
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("config", [RESNET_50, RESNET_18, CONVNEXT, DINO, GATED_DINO, CLIP])
def test_an_image_model_has_as_many_parameters_as_transformers_makes(config: Settings) -> None:
    found = weights(vision_programs(Row({**IMAGE, "config": config})))
    # Convolution nets have 1000 classes on top, vision transformers no table of places.
    assert found == pytest.approx(made(config), rel=0.1)


@pytest.mark.parametrize(
    ("config", "name", "image"),
    [
        (RESNET_50, "resnet50", None),
        (RESNET_18, "resnet18", None),
        (CLIP, "openai/clip-vit-base-patch32", None),
        (SD_1_5, "stable-diffusion-1.5", None),
        (SD_2_1, "stable-diffusion-2.1", "768x768"),
        (SD_XL, "stable-diffusion-xl", None),
        ({"model_type": "resnet", "depth": 50}, "resnet50", None),
        (PLAIN_SD_1_5, "stable-diffusion-1.5", None),
        (PLAIN_VIT, "vit-base-patch16-224", None),
        ({**PLAIN_VIT, "model_type": "vit", "embed_dim": 768}, "vit-base-patch16-224", None),
    ],
)
def test_a_config_is_predicted_as_the_model_by_name(
    config: Settings, name: str, image: str | None
) -> None:
    """Images are of the config's own size where the row does not say."""
    by_name = predicted(IMAGE, model=name, image=image)
    assert predicted(IMAGE, config=config).prediction == by_name.prediction
    assert by_name.prediction


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**RESNET_50, "depths": [3, 4]}, "depths and hidden_sizes in its config.json"),
        ({**RESNET_50, "layer_type": "odd"}, "ResNet's layer_type 'odd'"),
        ({**SD_1_5, "down_block_types": ["KDownBlock2D"] * 4}, "a U-Net with KDownBlock2D"),
        ({**SD_1_5, "layers_per_block": [1, 2, 2, 2]}, "no size of a U-Net"),
        ({"model_type": "swin", "embed_dim": 96, "patch_size": 4}, "image models of type 'swin'"),
        ({"model_type": "resnet", "depth": 51}, "no ResNet of depth 51"),
        ({**PLAIN_SD_1_5, "depths": [1, 1]}, "2 depths for 4 levels"),
        ({**DINO, "num_frames": 16, "tubelet_size": [2, 4, 4]}, "num_frames and tubelet_size"),
        ({"_class_name": "FluxTransformer2DModel"}, "of type 'FluxTransformer2DModel'"),
    ],
)
def test_an_image_model_without_an_operation_list_is_refused_by_name(
    config: Settings, said: str
) -> None:
    assert said in refusal(IMAGE, config=config)


def test_a_video_is_read_with_all_its_frames() -> None:
    sizes: Settings = {**PLAIN_VIT, "model_type": "videomae", "num_frames": 16}
    video, longer, image = (
        predicted(IMAGE, config=one).prediction["lat_p50_ms"]
        for one in (sizes, {**sizes, "num_frames": 32}, PLAIN_VIT)
    )
    assert 4 * image < video
    assert 1.8 * video < longer


@pytest.mark.parametrize("config", [BART, WHISPER])
def test_bart_and_whisper_are_read_with_their_own_names(config: Settings) -> None:
    row = Row({**TEXT, "config": config})
    assert weights(encoder_decoder_programs(row)) == pytest.approx(made(config), rel=0.1)
    assert predicted(TEXT, config=config).prediction["tok_lat_p50_ms"] > 0


def test_a_source_that_is_heard_is_as_long_as_its_frames() -> None:
    source, _ = encoder_decoder_programs(Row({**TEXT, "config": WHISPER}))
    assert source.bucket == 1500


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**BART, "decoder_ffn_dim": 2048}, "decoder_ffn_dim = 2048"),
        ({**BART, "num_experts": 8}, "num_experts = 8"),
        ({"model_type": "t5", "d_model": 512}, "num_layers in config.json"),
    ],
)
def test_stacks_that_are_not_alike_are_refused(config: Settings, said: str) -> None:
    assert said in refusal(TEXT, config=config)


@pytest.mark.parametrize("config", [BERT, BART, RESNET_50, DINO, CLIP, SD_XL, PLAIN_VIT])
def test_any_small_model_fits_by_its_config(config: Settings) -> None:
    found = predicted(MEMORY, config=config)
    assert (found.prediction, found.label) == ({"fits": True}, "extrapolated")


@pytest.mark.parametrize(
    "name",
    ["bert-base-uncased", "stable-diffusion-xl", "resnet50", "t5-large", "clip-vit-base-patch32"],
)
def test_any_small_model_fits_by_its_name(name: str) -> None:
    found = predicted(MEMORY, model=name)
    assert (found.prediction, found.label) == ({"fits": True}, "extrapolated")


def test_a_model_of_which_nothing_is_known_is_not_said_to_fit() -> None:
    found = predicted(MEMORY, model="nobody's")
    assert (found.prediction, found.label) == ({"fits": False}, "prior-only")


def test_an_encoder_that_is_too_large_does_not_fit() -> None:
    large = {**BERT, "hidden_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 64,
             "intermediate_size": 32768}  # fmt: skip
    assert predicted(MEMORY, config=large).prediction == {"fits": False}


SIZES = {
    "hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 32,
    "intermediate_size": 11008, "vocab_size": 32000, "model_type": "mistral",
    "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize("names", [{}, {"architectures": ["MistralForCausalLM"]}])
def test_heads_that_do_not_divide_the_hidden_state_are_refused(names: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match="hidden_size 4097 is no multiple of 32 attention heads"):
        decoder_architecture({**SIZES, **names, "hidden_size": 4097})
    assert decoder_architecture({**SIZES, "hidden_size": 4097, "head_dim": 128}).layers


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_mamba", "rwkv"])
def test_a_model_without_attention_is_refused_as_one(kind: str) -> None:
    config = {"model_type": kind, "hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280}
    with pytest.raises(UnsupportedModel, match=f"Models of type {kind} have no attention"):
        decoder_architecture(config)


@pytest.mark.parametrize("bits", [{"bits": 4}, {}])
@pytest.mark.parametrize("names", [{}, {"architectures": ["MistralForCausalLM"]}])
def test_a_plan_says_what_it_makes_of_quantised_weights(
    tmp_path: Path, bits: dict[str, int], names: dict[str, Any]
) -> None:
    path = tmp_path / "config.json"
    quantiser = {"quant_method": "awq", **bits}
    path.write_text(json.dumps({**SIZES, **names, "quantization_config": quantiser}))
    planner = typer.Typer()
    planner.command()(plan)
    done = CliRunner().invoke(planner, [str(path), "--rows", "1"])
    assert done.exit_code == 0, done.output
    said = "by awq" + (" in 4 bits" if bits else "")
    assert f"weights are kept {said}" in done.stderr
    assert "planned as bf16" in done.stderr
    assert "sized and timed only" in done.stdout
