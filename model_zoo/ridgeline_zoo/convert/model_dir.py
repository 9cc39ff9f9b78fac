"""Builds the model folder of the layout backends read, from the files a source delivered.

``config.json``, ``model.safetensors`` (or shards with an index), ``tokenizer.json``,
``tokenizer_config.json``, ``generation_config.json``, and for encoders ``1_Pooling/config.json``.
What the files say must agree with the card: a mismatch is an error here, not at the first request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ridgeline_zoo.card import Card, Json
from ridgeline_zoo.convert.gguf_tokenizer import (
    build_tokenizer,
    generation_config,
    tokenizer_config,
)
from ridgeline_zoo.convert.gguf_weights import llama_config, open_gguf, tensor_plans
from ridgeline_zoo.convert.safetensors_file import (
    DTYPE_NAMES,
    TensorHeader,
    TensorPlan,
    dtypes_in,
    read_header,
    recast,
    write_safetensors,
)
from ridgeline_zoo.errors import CannotConvert
from ridgeline_zoo.progress import Progress
from ridgeline_zoo.sources.selection import INDEX, POOLING

_SHARD_BYTES = 4 << 30


def build_model_dir(
    card: Card, fetched: Path, out: Path, progress: Progress, *, shard_bytes: int = _SHARD_BYTES
) -> None:
    """Fill ``out`` (exists, empty) from ``fetched``, whose files may be moved away.

    Raises CannotConvert if the files are damaged, incomplete or not those the card describes.
    """
    ggufs = sorted(fetched.glob("*.gguf"))
    if ggufs:
        _convert_gguf(card, ggufs[0], out, progress, shard_bytes)
    else:
        _adopt_safetensors(card, fetched, out, progress)
    _check_config(card, out)
    _recommend_sampling(card, out)


def _convert_gguf(card: Card, gguf: Path, out: Path, progress: Progress, shard_bytes: int) -> None:
    model = open_gguf(gguf)
    config = llama_config(model, card.dtype)
    plans = tensor_plans(model, config, card.dtype)
    _write_json(out / "config.json", config)
    _write_json(out / "tokenizer_config.json", tokenizer_config(model))
    _write_json(out / "generation_config.json", generation_config(model))
    build_tokenizer(model).save(str(out / "tokenizer.json"))
    total = sum(plan.size for plan in plans)
    done = 0

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        progress("prepare", done, total)

    _write_weights(out, plans, shard_bytes, wrote)


def _write_weights(
    out: Path, plans: Sequence[TensorPlan], shard_bytes: int, wrote: Callable[[int], None]
) -> None:
    shards: list[list[TensorPlan]] = [[]]
    for plan in plans:
        if shards[-1] and sum(p.size for p in shards[-1]) + plan.size > shard_bytes:
            shards.append([])
        shards[-1].append(plan)
    if len(shards) == 1:
        write_safetensors(out / "model.safetensors", shards[0], wrote=wrote)
        return
    places: dict[str, Json] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(out / name, shard, wrote=wrote)
        places |= {plan.name: name for plan in shard}
    total = sum(plan.size for plan in plans)
    _write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _adopt_safetensors(card: Card, fetched: Path, out: Path, progress: Progress) -> None:
    """Safetensors are taken byte for byte, unless they hold another dtype than the card's."""
    names = sorted(str(path.relative_to(fetched)) for path in fetched.rglob("*") if path.is_file())
    missing = sorted({"config.json", "tokenizer.json", "tokenizer_config.json"} - set(names))
    if card.task == "text-embedding" and POOLING not in names:
        missing.append(POOLING)
    if missing:
        raise CannotConvert(
            f"{card.source} lacks {', '.join(missing)}",
            hint="The engines read the tokenizer from tokenizer.json alone.",
        )
    weights = [name for name in names if name.endswith(".safetensors")]
    headers = _weight_headers(fetched, weights, card)
    found = dtypes_in(headers.values())
    if not found or not found <= {"BF16", "F16", "F32"}:
        raise CannotConvert(
            f"{card.source} holds weights as {', '.join(sorted(found)) or 'nothing'}",
            hint="BF16, F16 and F32 are read. Choose a model that is not quantised.",
        )
    total = sum((fetched / name).stat().st_size for name in names)
    done = 0
    for name in names:
        source, target = fetched / name, out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        done += source.stat().st_size
        if name in weights and found != {DTYPE_NAMES[card.dtype]}:
            recast(source, target, card.dtype, wrote=lambda size: None)
            source.unlink()
        else:
            source.rename(target)
        progress("prepare", done, total)
    if found != {DTYPE_NAMES[card.dtype]}:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
        # The key of newer transformers, and of older ones.
        config.pop("dtype", None)
        _write_json(out / "config.json", {**config, "torch_dtype": _TORCH_NAMES[card.dtype]})


_TORCH_NAMES: Mapping[str, str] = {"bf16": "bfloat16", "fp32": "float32"}


def _weight_headers(fetched: Path, weights: Sequence[str], card: Card) -> dict[str, TensorHeader]:
    headers: dict[str, TensorHeader] = {}
    for name in weights:
        headers |= read_header(fetched / name)
    index = fetched / INDEX
    if index.is_file():
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        absent = sorted(set(listed.values()) - set(weights))
        if absent:
            raise CannotConvert(f"{card.source} lacks the shards {', '.join(absent)}")
    return headers


def _recommend_sampling(card: Card, out: Path) -> None:
    """Sampling of the card into generation_config.json, where the model's own does not say it."""
    if not card.sampling:
        return
    path = out / "generation_config.json"
    own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    _write_json(path, {**card.sampling, **own})


def _check_config(card: Card, out: Path) -> None:
    """Every entry of the card's config must be what the model's own config says."""
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config") is not None:
        raise CannotConvert(
            f"{card.source} is quantised (config.json has quantization_config)",
            hint="Choose the model's unquantised form.",
        )
    for name, stated in card.config.items():
        actual = _entry(config, name)
        # What publishers leave out because it is the default.
        if actual is None and (stated is None or stated is False or name in _DERIVED):
            continue
        if actual != stated:
            raise CannotConvert(
                f"{card.source}: config.json has {name}={actual!r}, the card says {stated!r}",
                hint="The source is another model than the card describes, or has changed.",
            )


_DERIVED = frozenset({"head_dim", "num_key_value_heads", "type_vocab_size"})


def _entry(config: Mapping[str, Json], name: str) -> Json:
    """An entry of config.json, wherever the version of transformers that wrote it put it."""
    rotary = config.get("rope_parameters")
    if isinstance(rotary, dict) and name == "rope_theta":
        return rotary.get("rope_theta", config.get(name))
    if isinstance(rotary, dict) and name == "rope_scaling":
        if rotary.get("rope_type", "default") == "default":
            return None
        return {key: value for key, value in rotary.items() if key != "rope_theta"}
    return config.get(name)


def _write_json(path: Path, value: dict[str, Json]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
