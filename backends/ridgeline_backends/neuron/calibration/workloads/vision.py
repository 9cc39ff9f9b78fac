"""Rows of networks on images: convolution nets, vision transformers, Perceivers, diffusion."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ridgeline_backends.neuron.builders.convnet import (
    ResNetShape,
    build_convnext,
    build_resnet,
    build_unet,
    build_vgg,
    build_yolo_v4,
    resnet_shape,
)
from ridgeline_backends.neuron.builders.diffusion import (
    UNetShape,
    build_image_decoder,
    build_transformer_step,
    build_unet_step,
)
from ridgeline_backends.neuron.builders.encoder import (
    EncoderShape,
    build_encoder,
    build_vision_encoder,
)
from ridgeline_backends.neuron.builders.perceiver import PerceiverShape, build_perceiver
from ridgeline_backends.neuron.calibration.places import degree_of, machine_of
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads.encoder import calls, compiler_of, results
from ridgeline_backends.neuron.calibration.workloads.image_models import image_model
from ridgeline_backends.neuron.calibration.workloads.precision import products_of
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.program import ElementType, Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import Work

_SIDES = re.compile(r"\d{1,9}(?:\s*[x×]\s*\d{1,9})+|^\d{1,9}$")
_CHANNELS = (1, 3, 4)
_DIFFUSION = ("unet2d", "dit")
_CONVOLUTIONS = ("resnet", "convnext", "vgg", "unet", "yolo")

_CAPTIONS, _CAPTION_TOKENS = 100, 9
"""What CLIP is given beside its images: the published sample asks which of CIFAR-100's classes they
show, by a caption for each, padded to the longest (hf_pretrained_clip_base_inference_on_inf2)."""

_COPY_BYTES_S, _NUMBER_BYTES = 5e9, 4
"""A thread that copies, to pages it has not touched before."""


def vision_quantities(row: Row) -> list[Quantity]:
    """Fields of "vision"."""
    machine = machine_of(row)
    sizes = _sizes_of(row)
    builder = str(sizes["builder"])
    batch = row.integer("batch", 1)
    programs = vision_programs(row)
    if builder in _DIFFUSION:
        work = _diffusion(machine, programs, steps=_size(sizes, "steps"))
        return calls(row, machine, work.compiled_by(row.sdk_minor), batch, domain="diffusion",
                     streams=1)  # fmt: skip
    work = Work.total(
        part
        for program in programs
        for part in (
            Work.of(program, machine).compiled_by(compiler_of(row, machine)),
            results(program),
        )
    )
    if builder == "perceiver" and not sizes.get("channels"):
        work = Work.total((work, _copied(_perceiver(sizes, products_of(row)))))
    domain = "convnet" if builder in _CONVOLUTIONS else "vision_transformer"
    if machine.chip.neuroncore == "v1":
        domain = "vision_inf1"
    return calls(row, machine, work, batch, domain=domain)


def vision_programs(row: Row) -> tuple[Program, ...]:
    """What the device executes for a row's images; of diffusion a step, and what makes pixels of
    the last. Raises `NotFound` and `UnpredictableRow`."""
    sizes, batch = _sizes_of(row), row.integer("batch", 1)
    builder = str(sizes["builder"])
    if builder in _DIFFUSION:
        return _diffusion_programs(row, builder, sizes, batch)
    image = _image(row, sizes)[0]
    dtype = products_of(row)
    if builder == "resnet":
        return (build_resnet(_resnet(sizes), batch=batch, image=image, dtype=dtype),)
    if builder == "convnext":
        depths, widths = _listed(sizes, "depths"), _listed(sizes, "hidden_sizes")
        patch = _size(sizes, "patch")
        return (build_convnext(depths, widths, batch=batch, image=image, patch=patch, dtype=dtype),)
    if builder == "vgg":
        return (build_vgg(_size(sizes, "depth"), batch=batch, image=image, dtype=dtype),)
    if builder == "unet":
        return (build_unet(batch=batch, image=image, dtype=dtype),)
    if builder == "yolo":
        return (build_yolo_v4(batch=batch, image=image, dtype=dtype),)
    if builder == "perceiver":
        return (build_perceiver(_perceiver(sizes, dtype), batch=batch),)
    tower = build_vision_encoder(
        _tower(sizes, dtype),
        batch=batch,
        image=image,
        patch=_size(sizes, "patch"),
        cores=degree_of(row, machine_of(row)),
    )
    if builder != "clip":
        return (tower,)
    hidden = _size(sizes, "text_hidden_size")
    text = EncoderShape(
        hidden=hidden,
        layers=_size(sizes, "text_layers"),
        heads=_size(sizes, "text_heads"),
        intermediate=4 * hidden,
        vocab=_size(sizes, "vocab_size"),
        causal=True,
        dtype=dtype,
    )
    return (tower, build_encoder(text, batch=_CAPTIONS, length=_CAPTION_TOKENS))


def _diffusion(machine: Machine, programs: tuple[Program, ...], *, steps: int) -> Work:
    """So many images: their steps, then pixels, which are read back."""
    step, decoder = programs
    return Work.total((Work.of(step, machine) * steps, Work.of(decoder, machine), results(decoder)))


def _diffusion_programs(
    row: Row, builder: str, sizes: Mapping[str, object], batch: int
) -> tuple[Program, ...]:
    """A step, on two latents of an image where it is guided. The published pipelines run the
    conditioned and the unconditioned latents on a core each, at once."""
    height, width = (side // 8 for side in _image(row, sizes))
    matrices = products_of(row)
    decoder = build_image_decoder(batch=batch, height=height, width=width, dtype=matrices)
    if builder == "dit":
        step = build_transformer_step(
            _tower(sizes, matrices),
            batch=2 * batch,
            tokens=height * width // 4,
            text=_size(sizes, "text_length"),
        )
    else:
        shape = UNetShape(
            block_out_channels=_listed(sizes, "block_out_channels"),
            depths=_listed(sizes, "depths"),
            cross_attention_dim=_size(sizes, "cross_attention_dim"),
            head_dim=_size(sizes, "head_dim"),
            layers_per_block=_size(sizes, "layers_per_block", 2),
            in_channels=_size(sizes, "in_channels", 4),
            dtype=matrices,
        )
        step = build_unet_step(shape, batch=batch, height=height, width=width)
    return step, decoder


def _resnet(sizes: Mapping[str, object]) -> ResNetShape:
    if "depths" not in sizes:
        return resnet_shape(_size(sizes, "depth"))
    return ResNetShape(
        depths=_listed(sizes, "depths"),
        widths=_listed(sizes, "hidden_sizes"),
        bottleneck=sizes["bottleneck"] is True,
        stem=_size(sizes, "embedding_size"),
    )


def _copied(shape: PerceiverShape) -> Work:
    """What the published script copies on the host: inputs as features, with padding, and joined;
    and after each part of the outputs all that there are."""
    inputs = shape.inputs * shape.input_width
    outputs = shape.outputs * shape.decoded * (shape.parts + 1) // 2
    return Work.host(fixed_s=(3 * inputs + outputs) * _NUMBER_BYTES / _COPY_BYTES_S)


def _perceiver(sizes: Mapping[str, object], dtype: ElementType) -> PerceiverShape:
    return PerceiverShape(
        inputs=_size(sizes, "inputs"),
        input_width=_size(sizes, "input_width"),
        latents=_size(sizes, "latents"),
        hidden=_size(sizes, "hidden_size"),
        blocks=_size(sizes, "blocks"),
        layers=_size(sizes, "layers_per_block"),
        heads=_size(sizes, "num_attention_heads"),
        outputs=_size(sizes, "outputs", 1),
        parts=_size(sizes, "parts", 1),
        query_width=_size(sizes, "query_width", 0),
        decoded=_size(sizes, "decoded", 0),
        image=_size(sizes, "image", 0) if "channels" in sizes else 0,
        channels=_size(sizes, "channels", 0),
        dtype=dtype,
    )


def _tower(sizes: Mapping[str, object], dtype: ElementType) -> EncoderShape:
    return EncoderShape(
        dtype=dtype,
        hidden=_size(sizes, "hidden_size"),
        layers=_size(sizes, "num_hidden_layers"),
        heads=_size(sizes, "num_attention_heads"),
        intermediate=_size(sizes, "intermediate_size"),
        gated=sizes.get("gated") is True,
    )


def _image(row: Row, sizes: Mapping[str, object]) -> tuple[int, int]:
    """Height and width: the row's, else the model's own. Channels may stand before or behind them,
    and the batch or the frames first."""
    found = _SIDES.search(row.text("image").strip().lower())
    if found is None:
        side = _size(sizes, "image", _size(sizes, "image_size", 224))
        return side, side
    sides = [int(one) for one in re.findall(r"\d+", found.group())]
    if len(sides) > 2 and sides[-1] in _CHANNELS:
        sides.pop()
    height, width = (sides * 2)[-2:]  # one number is both
    if not height * width:
        raise UnpredictableRow(f"{row.id}: image {row.text('image')!r} has no pixels.")
    return height, width


def _sizes_of(row: Row) -> Mapping[str, object]:
    if row.config is None:
        return find(row.model, "vision").config
    return image_model(row.config, row)


def _size(sizes: Mapping[str, object], name: str, default: int | None = None) -> int:
    value = sizes.get(name)
    if name == "patch" and value is None:
        value = sizes.get("patch_size")
    if type(value) is int:
        return value
    if default is None:
        raise UnpredictableRow(f"The model's sizes have no whole number {name!r}.")
    return default


def _listed(sizes: Mapping[str, object], name: str) -> tuple[int, ...]:
    value = sizes.get(name)
    if not isinstance(value, list | tuple):
        raise UnpredictableRow(f"The model's sizes have no list {name!r}.")
    return tuple(int(one) for one in value)
