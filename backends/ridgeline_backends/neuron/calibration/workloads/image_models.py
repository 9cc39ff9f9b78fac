"""An image model's config.json, as transformers and diffusers write it, in the catalogue's words.

`builder` says which operation list; the rest are its sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow

Sizes = Mapping[str, object]

_STEPS = 50
"""Of an image, as diffusers' pipelines make them where nobody says."""

_CLIP_VISION: Sizes = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 224, "patch_size": 32,
}  # fmt: skip
_CLIP_TEXT: Sizes = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "vocab_size": 49408,
}  # fmt: skip
"""What transformers takes for what CLIP's sections leave out."""

_OF_IMAGES = (
    "builder", "patch_size", "patch", "image_size", "block_out_channels", "down_block_types",
    "hidden_sizes",
)  # fmt: skip
_STAGES = ("hidden_sizes", "depths", "embed_dims")
"""Settings of networks whose stages have widths of their own."""


def is_image_model(config: Sizes) -> bool:
    """Whether the whole of it is a network on images, not a part of one that writes."""
    if config.get("model_type") in ("clip", "resnet"):
        return True
    texts = any(config.get(name) for name in ("vocab_size", "text_config", "d_model"))
    return not texts and any(config.get(name) for name in _OF_IMAGES)


def image_model(config: Sizes, row: Row) -> Sizes:
    """Raises `UnpredictableRow` for a network of which there is no operation list."""
    if "builder" in config:
        return config
    kind = str(config.get("model_type", ""))
    if kind == "resnet":
        return _resnet(config, row)
    if kind in ("convnext", "convnextv2"):
        _refuse_uneven(config, row)
        return {**config, "builder": "convnext", "patch": config.get("patch_size", 4)}
    if kind == "clip":
        return _clip(config)
    if "block_out_channels" in config and "down_block_types" in config:
        return _unet(config, row)
    if "block_out_channels" in config and "depths" in config:
        return _plain_unet(config, row)
    if _is_tower(config):
        return _tower(config, row)
    name = kind or config.get("_class_name") or config.get("architectures")
    raise UnpredictableRow(
        f"{row.id}: there is no builder for image models of type {name!r}.",
        hint="There are some for ResNet, ConvNeXt, ViT and its like, CLIP, and the U-Net of Stable "
        "Diffusion.",
    )


def _is_tower(config: Sizes) -> bool:
    if not (config.get("patch_size") or config.get("patch")):
        return False
    # Networks of stages call the width of the first that too.
    one_width = "hidden_size" in config or not config.get("embed_dim")
    return one_width and not any(config.get(name) for name in _STAGES)


def _resnet(config: Sizes, row: Row) -> Sizes:
    if "depth" in config and "depths" not in config:
        return {**config, "builder": "resnet"}
    kind = config.get("layer_type", "bottleneck")
    if kind not in ("basic", "bottleneck"):
        raise UnpredictableRow(f"{row.id}: there is no builder for ResNet's layer_type {kind!r}.")
    _refuse_uneven(config, row)
    return {"embedding_size": 64, **config, "builder": "resnet", "bottleneck": kind == "bottleneck"}


def _refuse_uneven(config: Sizes, row: Row) -> None:
    """Depths and widths must be whole numbers, of as many stages."""
    stages = [config.get(name) for name in ("depths", "hidden_sizes")]
    lists = [one for one in stages if isinstance(one, list) and one]
    whole = all(type(size) is int and size > 0 for one in lists for size in one)
    if len(lists) < 2 or not whole or len(lists[0]) != len(lists[1]):
        raise UnpredictableRow(
            f"{row.id}: depths and hidden_sizes in its config.json must be lists of whole numbers, "
            "one for each stage."
        )


def _unet(config: Sizes, row: Row) -> Sizes:
    """`attention_head_dim` is how many heads there are, by diffusers' own admission. Their width is
    taken from the first level."""
    channels, blocks = config["block_out_channels"], config["down_block_types"]
    if not isinstance(channels, list) or not isinstance(blocks, list):
        raise UnpredictableRow(f"{row.id}: block_out_channels and down_block_types must be lists.")
    plain = [str(one) for one in blocks if one not in ("DownBlock2D", "CrossAttnDownBlock2D")]
    if plain or len(blocks) != len(channels):
        named = plain[0] if plain else f"{len(blocks)} blocks for {len(channels)} levels"
        raise UnpredictableRow(f"{row.id}: there is no builder for a U-Net with {named}.")
    heads = _by_level(config.get("num_attention_heads") or config.get("attention_head_dim", 8), row)
    deep = config.get("transformer_layers_per_block", 1)
    depths = [
        _by_level(deep, row, level) if block == "CrossAttnDownBlock2D" else 0
        for level, block in enumerate(blocks)
    ]
    side = config.get("sample_size", 64)
    return {
        **config,
        "builder": "unet2d",
        "depths": depths,
        "layers_per_block": _whole(config.get("layers_per_block", 2), row),
        "head_dim": max(1, _by_level(channels, row) // heads),
        "steps": _STEPS,
        "image": 8 * side if type(side) is int else 512,
    }


def _plain_unet(config: Sizes, row: Row) -> Sizes:
    """A level's transformers are counted by `depths`, in the catalogue's words."""
    channels, depths = config["block_out_channels"], config["depths"]
    if not isinstance(channels, list) or not isinstance(depths, list):
        raise UnpredictableRow(f"{row.id}: block_out_channels and depths must be lists.")
    if len(channels) != len(depths):
        raise UnpredictableRow(
            f"{row.id}: its config.json has {len(depths)} depths for {len(channels)} levels."
        )
    return {"steps": _STEPS, **config, "builder": "unet2d"}


def _by_level(value: object, row: Row, level: int = 0) -> int:
    if isinstance(value, list) and level < len(value):
        value = value[level]
    return _whole(value, row)


def _whole(value: object, row: Row) -> int:
    if type(value) is not int or value < 1:
        raise UnpredictableRow(f"{row.id}: {value!r} in its config.json is no size of a U-Net.")
    return value


def _clip(config: Sizes) -> Sizes:
    vision, text = config.get("vision_config"), config.get("text_config")
    image = {**_CLIP_VISION, **(vision if isinstance(vision, Mapping) else {})}
    words = {**_CLIP_TEXT, **(text if isinstance(text, Mapping) else {})}
    return {
        **image,
        "builder": "clip",
        "text_hidden_size": words["hidden_size"],
        "text_layers": words["num_hidden_layers"],
        "text_heads": words["num_attention_heads"],
        "vocab_size": words["vocab_size"],
    }


def _tower(config: Sizes, row: Row) -> Sizes:
    """A vision transformer. Images that are not square count as square ones of their area, videos
    as an image of as many patches."""
    found: dict[str, object] = {**config, "builder": "vit"}
    sides = config.get("image_size")
    if isinstance(sides, list) and len(sides) == 2 and all(type(one) is int for one in sides):
        found["image_size"] = isqrt(sides[0] * sides[1])
    side = found.get("image", found.get("image_size", 224))
    if config.get("num_frames") and type(side) is int:
        found["image"] = isqrt(side * side * _pictures(config, row))
    hidden, ratio = config.get("hidden_size"), config.get("mlp_ratio")
    if config.get("intermediate_size") is None and ratio is not None:
        if type(hidden) is not int or not isinstance(ratio, int | float):
            raise UnpredictableRow(f"{row.id}: hidden_size and mlp_ratio must be numbers.")
        found["intermediate_size"] = int(hidden * ratio)
    if config.get("use_swiglu_ffn") is True:
        # A third matrix, and as many numbers in all as two of that ratio.
        found["intermediate_size"] = _swiglu(found["intermediate_size"])
        found["gated"] = True
    return found


def _pictures(config: Sizes, row: Row) -> int:
    """Of a video: frames, of which so many make one layer of patches."""
    left_out = 2 if config.get("model_type") == "videomae" else 1
    frames, together = config["num_frames"], config.get("tubelet_size", left_out)
    if type(frames) is not int or type(together) is not int or not 0 < together <= frames:
        raise UnpredictableRow(
            f"{row.id}: num_frames and tubelet_size in its config.json must be whole numbers."
        )
    return frames // together


def _swiglu(columns: object) -> int:
    """DINOv2's: two thirds, rounded up to a multiple of 8."""
    wide = columns if isinstance(columns, int) else 1
    return (2 * wide // 3 + 7) // 8 * 8
