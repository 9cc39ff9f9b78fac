"""What sentence-transformers' files in a model directory say: how hidden states become a vector,
and what follows a cross-encoder's score. Imports no torch.

`1_Pooling/config.json`: the mean of the hidden states, which is the default, or the first one.
`sentence_bert_config.json`: the tokens that the model was trained on.
`modules.json`: without a Normalize module vectors keep their length; with a module that nothing
here computes the model is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.models.reader import Reader, read_json, read_json_list

_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """`mean` of all tokens' states, else the first token's; `normalised` to unit length."""

    mean: bool = True
    normalised: bool = True


def read_pooling(model_dir: Path) -> Pooling:
    """Raises `UnsupportedModel` for what would not be honoured."""
    return Pooling(mean=_takes_mean(model_dir), normalised=_normalises(model_dir))


def trained_length(model_dir: Path) -> int | None:
    """Tokens of the longest text that the authors trained on, where that is less than there are
    positions for; None where nothing says so."""
    path = model_dir / "sentence_bert_config.json"
    found = read_json(path).get("max_seq_length") if path.is_file() else None
    return found if type(found) is int and found > 0 else None


def last_function(config: Mapping[str, object]) -> Callable[[float], float]:
    """What a cross-encoder's config has follow its score: the one that it names, else the logistic
    one, as sentence-transformers has it for models with one label. Raises `UnsupportedModel`."""
    section = Reader(config).section("sentence_transformers")
    named = section.get("activation_fn") or config.get("sbert_ce_default_activation_function")
    kind = str(named or "Sigmoid").rpartition(".")[2]
    if kind == "Sigmoid":
        return _logistic
    if kind == "Identity":
        return lambda value: value
    raise UnsupportedModel(
        f"activation_fn = {named!r} is not supported.", hint="Supported: Sigmoid and Identity."
    )


def _takes_mean(model_dir: Path) -> bool:
    path = model_dir / "1_Pooling" / "config.json"
    if not path.is_file():
        return True
    config = read_json(path)
    asked = {name for name, on in config.items() if name.startswith("pooling_mode_") and on}
    mode = config.get("pooling_mode")
    if asked == {"pooling_mode_mean_tokens"} or mode == "mean":
        return True
    if asked == {"pooling_mode_cls_token"} or mode == "cls":
        return False
    raise UnsupportedModel(
        f"Pooling {mode or ', '.join(sorted(asked)) or 'none'} is not supported.",
        hint="Supported: pooling_mode_mean_tokens or pooling_mode_cls_token alone.",
    )


def _normalises(model_dir: Path) -> bool:
    """Yes for a model without sentence-transformers files."""
    path = model_dir / "modules.json"
    if not path.is_file():
        return True
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in read_json_list(path)]
    strange = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    if strange:
        raise UnsupportedModel(
            f"modules.json asks for {', '.join(strange)}, which is not supported.",
            hint=f"Supported: {', '.join(sorted(_KNOWN_MODULES))}.",
        )
    return "Normalize" in kinds


def _logistic(value: float) -> float:
    # Of the two forms, the one whose power cannot overflow.
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))
