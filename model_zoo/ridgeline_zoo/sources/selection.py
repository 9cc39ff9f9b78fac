"""Which files of a repository or folder make up a model, and which are never read.

Weights are read from safetensors or GGUF. Pickles run code when they are loaded: they are not
fetched, and a model that has nothing else is refused by the names of its files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from ridgeline_zoo.errors import SourceNotFound, UnsafeFile

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".mar")
_TEXTS = (".json", ".txt", ".jinja")
_TOKENIZERS = ("tokenizer.model", "tokenizer.model.v3", "spiece.model")
POOLING = "1_Pooling/config.json"
INDEX = "model.safetensors.index.json"


def select_files(names: Iterable[str], origin: str) -> tuple[str, ...]:
    """The names worth fetching, sorted: one set of weights and the small files around it.

    Sub-folders are other forms of the same weights (``original/``, ``onnx/``) and are left out,
    but for the pooling of an embedding model. Raises UnsafeFile if only pickles hold weights,
    SourceNotFound if nothing does.
    """
    everything = sorted(names)
    top = [name for name in everything if "/" not in name]
    weights = _weights(top)
    if not weights:
        pickles = [name for name in everything if is_pickle(name)]
        if pickles:
            raise UnsafeFile(
                f"{origin} has its weights only as pickles: {', '.join(pickles[:5])}",
                hint="Only safetensors and GGUF are read. Convert the model, or choose another.",
            )
        raise SourceNotFound(f"{origin} has no safetensors and no GGUF file")
    around = [
        name
        for name in everything
        if (name in top and (name.endswith(_TEXTS) or name in _TOKENIZERS)) or name == POOLING
    ]
    if not any(name.startswith("model-") for name in weights):
        around = [name for name in around if name != INDEX]
    return tuple(sorted({*weights, *around}))


def is_pickle(name: str) -> bool:
    """Whether the file's kind is one that may run code when it is loaded."""
    return posixpath.basename(name).lower().endswith(_PICKLES)


def refuse_pickle(name: str, origin: str) -> None:
    """Raise UnsafeFile if the name is a pickle's."""
    if is_pickle(name):
        raise UnsafeFile(
            f"{origin}: {name} is of a kind that may run code when it is read",
            hint="Only safetensors and GGUF are read. Convert the model, or choose another.",
        )


def _weights(top: list[str]) -> list[str]:
    tensors = [name for name in top if name.endswith(".safetensors")]
    # A repository may hold the same weights twice, under the names of another library
    # ("consolidated.safetensors"): those of transformers are the ones wanted.
    named = [name for name in tensors if name.startswith("model")]
    sharded = [name for name in named if name.startswith("model-")]
    if "model.safetensors" in named:
        return ["model.safetensors"]
    if sharded and INDEX in top:
        return sharded
    ggufs = [name for name in top if name.endswith(".gguf")]
    return ggufs if len(ggufs) == 1 and not tensors else tensors
