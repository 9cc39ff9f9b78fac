"""The base model and its tokenizer, as they are trained."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from ridgeline_recipes.options import Options


def prepare(options: Options) -> None:
    """Threads, and a log that holds what a user can act on."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    # The libraries' versions are fixed: what they will rename is nothing for a user.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if options.threads:
        torch.set_num_threads(options.threads)


def load_tokenizer(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal(folder: Path, dtype: str) -> Any:
    """A model that continues text, in ``dtype`` (bf16 or fp32)."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=kind, local_files_only=True)


def storage_dtype(folder: Path) -> torch.dtype:
    """The type that a model folder stores its weights in, by its config.json."""
    config = json.loads((folder / "config.json").read_text())
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return torch.bfloat16 if named.removeprefix("torch.") == "bfloat16" else torch.float32


def end_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a generation: the tokenizer's, and those of generation_config.json."""
    found = {int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else set()
    path = folder / "generation_config.json"
    if path.is_file():
        named = json.loads(path.read_text()).get("eos_token_id")
        found |= set(named if isinstance(named, list) else [] if named is None else [named])
    return frozenset(found)
