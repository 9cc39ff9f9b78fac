"""`python -m ridgeline_backends.neuron.jobs.compile SOURCE OUTPUT --target ml_inf2`: one model.

SOURCE holds a model in Hugging Face's layout, or one program: an exported `.pt2`, or TorchScript as
`.pt` or `.pth`. OUTPUT becomes the compiled model: what SOURCE has, and `neuron/` with a module for
each phase and bucket. Prints a line of JSON for every module, and one with the result or the error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.errors import RidgelineError
from ridgeline_backends.models.config import architecture
from ridgeline_backends.models.encoder_config import EncoderConfig, encoder_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.sentence_files import read_pooling, trained_length
from ridgeline_backends.models.weights import weight_files
from ridgeline_backends.neuron.artifact import compiler_version
from ridgeline_backends.neuron.builders.configs import context_length
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder
from ridgeline_backends.neuron.compile import (
    BucketDone,
    Compiled,
    compile_decoder,
    compile_encoder,
    compile_program,
)
from ridgeline_backends.neuron.compile_cache import CompileCache, open_cache
from ridgeline_backends.neuron.config import NeuronConfig, neuron_config
from ridgeline_backends.neuron.jobs.options import (
    InvalidOrder,
    Order,
    read_order,
    smallest_placement,
)
from ridgeline_backends.neuron.placement import Placement

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_PROGRAMS = (".pt2", ".pt", ".pth")
_SEQUENCE = 2048
_NUMBERS = ("torch_dtype", "quantized", "quantization_dtype", "kv_cache_quant")
"""Fields of the settings that say what numbers are kept as."""


def compile_folder(
    source: Path, output: Path, order: Order, cache: CompileCache
) -> dict[str, object]:
    """Fill `output`; what was compiled, for whoever asked. Raises `RidgelineError`s for what cannot
    be: `InvalidOrder`, `DoesNotFit`, `UnsupportedOperator`, ..."""
    root = _root(source)
    if (root / "config.json").is_file():
        placement, made, neuron = _whole(root, order, cache)
        shutil.copytree(root, output, dirs_exist_ok=True)
        last = made.modules[-1]
        shapes: Mapping[str, list[int]] = {"input_ids": [last.batch, last.bucket]}
        numbers = {name: getattr(neuron, name) for name in _NUMBERS}
    else:
        placement, made, shapes = _program(root, output, order, cache)
        numbers = {}
    result: dict[str, object] = {
        "compiler": compiler_version(),
        "target": order.target,
        "instance_type": placement.instance.name,
        "neuron_cores": placement.cores,
        "logical_neuroncore_config": placement.lnc,
        "inputs": shapes,
        **numbers,
        "modules": [asdict(one) for one in made.modules],
        "cached": made.cached,
        "core_bytes": made.need.table(),
        "core_bytes_available": placement.core_memory_bytes,
    }
    folder = output / "neuron"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compiled.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    return result


def _root(source: Path) -> Path:
    """Where the model lies: archives often hold one folder that has it all."""
    entries = [path for path in source.iterdir() if not path.name.startswith(".")]
    if len(entries) == 1 and entries[0].is_dir():
        return _root(entries[0])
    return source


def _whole(
    root: Path, order: Order, cache: CompileCache
) -> tuple[Placement, Compiled, NeuronConfig]:
    """A model in Hugging Face's layout: a decoder, or a text encoder."""
    config = read_json(root / "config.json")
    weight_files(root)  # what has none is refused here, not when it is deployed
    placement = smallest_placement(order)
    encoder = _encoder(config)
    longest = _longest_text(root, encoder) if encoder else context_length(config)
    given: dict[str, object] = {"seq_len": min(_SEQUENCE, longest or _SEQUENCE)}
    if order.shapes:
        given["batch_size"], given["seq_len"] = _tokens_shape(order.shapes)
    if encoder is None:
        given["fused_qkv"] = True
    neuron = neuron_config({**given, **order.settings, "tp_degree": placement.cores})
    if encoder is None:
        made = compile_decoder(config, neuron, placement, cache, progress=_progress)
    else:
        made = compile_encoder(
            encoder, neuron, placement, cache, pooling=read_pooling(root), progress=_progress
        )
    return placement, made, neuron


def _longest_text(root: Path, encoder: EncoderConfig) -> int:
    """As endpoints take them: what embeds takes no more than it was trained on."""
    trained = None if encoder.rerank else trained_length(root)
    return min(encoder.context_length, trained or encoder.context_length)


def _tokens_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """[batch, length] of the token ids; masks and the like have the same. Raises `InvalidOrder`."""
    shape = shapes.get("input_ids", shapes.get("input0"))
    if shape is None:
        raise InvalidOrder(
            f"DataInputConfig names {', '.join(shapes)}, and the model reads input_ids."
        )
    if len(shape) != 2:
        raise InvalidOrder(f"input_ids is [batch, length], not {list(shape)}.")
    return shape[0], shape[1]


def _encoder(config: Mapping[str, object]) -> EncoderConfig | None:
    """None for a decoder. Raises `UnsupportedModel` for an encoder that would not be served."""
    found = text_encoder(config)
    if found is None:
        return None
    return encoder_config(config, architecture(config)) if found.stands_for else found.config


def _program(
    root: Path, output: Path, order: Order, cache: CompileCache
) -> tuple[Placement, Compiled, Mapping[str, list[int]]]:
    """One core's program of whatever module there is."""
    # Here, because it imports torch, which models in Hugging Face's layout do without.
    from ridgeline_backends.neuron.jobs.programs import load_program, shapes_of, trace

    found = [path for path in sorted(root.rglob("*")) if path.suffix in _PROGRAMS]
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise InvalidOrder(
            "The archive must hold a config.json with weights, or exactly one program "
            f"({', '.join(_PROGRAMS)}); it holds {listed}."
        )
    if order.settings.get("tp_degree", 1) != 1:
        raise InvalidOrder(
            "A program of one file is compiled for one core.",
            hint="Leave tp_degree out, or give a model in Hugging Face's layout.",
        )
    placement = smallest_placement(Order(order.target, {}, {**order.settings, "tp_degree": 1}))
    exported: ExportedProgram = load_program(found[0], order.shapes)
    made = compile_program(trace(exported), placement, cache, progress=_progress)
    output.mkdir(parents=True, exist_ok=True)
    shutil.copy2(found[0], output / found[0].name)
    if found[0].suffix == ".pt2":
        return placement, made, shapes_of(exported)
    return placement, made, {name: list(shape) for name, shape in order.shapes.items()}


def _progress(bucket: BucketDone) -> None:
    _say({"done": bucket.done, "total": bucket.total})


def _say(message: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Exit status 0 with a result, 1 with an error; both are printed."""
    parser = argparse.ArgumentParser(prog="python -m ridgeline_backends.neuron.jobs.compile")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--shapes", default="")
    parser.add_argument("--options", default="")
    asked = parser.parse_args(arguments)
    try:
        order = read_order(asked.target, asked.shapes, asked.options)
        _say({"result": compile_folder(asked.source, asked.output, order, open_cache())})
    except RidgelineError as error:
        _say({"error": {"code": error.code, "message": error.message, "hint": error.hint or ""}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
