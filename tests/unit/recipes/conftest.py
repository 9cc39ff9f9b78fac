"""Models for recipes that learn in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recipe_jobs import ENVIRONMENTS


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of random weights."""
    out = tmp_path_factory.mktemp("tiny") / "model"
    command = [sys.executable, "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded"]
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def libraries() -> str:
    """The interpreter of an environment with trl and peft. Skips where there is none."""
    for python in ENVIRONMENTS:
        if python.exists():
            return str(python)
    pytest.skip("no environment with trl and peft: `make recipes` makes one")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights that knows a dozen words."""
    # Imported here: only the tests that train need them.
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast, set_seed

    out = tmp_path_factory.mktemp("encoder")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*specials, "florins", "cost", "open", "early", "town", "river", "lamp"]
    (out / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertWordPieceTokenizer(str(out / "vocab.txt"), lowercase=True)
    BertTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(out)
    set_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(out)
    return out
