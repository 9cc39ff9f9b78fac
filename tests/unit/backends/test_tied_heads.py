"""A head that is stored although the config says that the embedding is used in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ridgeline_backends.errors import InvalidModel
from ridgeline_backends.models.config import decoder_config
from ridgeline_backends.models.decoder import DecoderWeights, read_decoder
from ridgeline_backends.models.weights import Weights

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 10,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}
EMBEDDING = torch.arange(40, dtype=torch.float32).view(10, 4)


def read(
    folder: Path,
    *,
    tied: bool,
    head: torch.Tensor | None,
    embedding: torch.Tensor = EMBEDDING,
) -> DecoderWeights:
    tensors = {"model.embed_tokens.weight": embedding, "model.norm.weight": torch.ones(4)}
    if head is not None:
        tensors["lm_head.weight"] = head
    save_file(tensors, folder / "model.safetensors")
    with Weights(folder) as weights:
        return read_decoder(decoder_config({**CONFIG, "tie_word_embeddings": tied}), weights)


# The empty one is what sharded training leaves of a tensor that it keeps elsewhere.
@pytest.mark.parametrize(
    "head", [None, EMBEDDING.clone(), EMBEDDING.to(torch.bfloat16), torch.empty(0)]
)
def test_the_embedding_is_the_head(head: torch.Tensor | None, tmp_path: Path):
    found = read(tmp_path, tied=True, head=head)
    assert found.head is found.embedding


def test_rows_that_are_no_numbers_are_compared_as_well(tmp_path: Path):
    embedding = EMBEDDING.clone()
    embedding[3] = torch.nan
    found = read(tmp_path, tied=True, head=embedding.clone(), embedding=embedding)
    assert found.head is found.embedding


@pytest.mark.parametrize(
    "head",
    [
        EMBEDDING + 1,
        torch.cat([EMBEDDING, torch.zeros(6, 4)]),
        EMBEDDING.to(torch.int8),
        torch.tensor(1.0),
    ],
    ids=["other numbers", "padded vocabulary", "quantised", "scalar"],
)
def test_a_head_that_differs_is_not_dropped_without_a_word(head: torch.Tensor, tmp_path: Path):
    with pytest.raises(InvalidModel, match=r"lm_head\.weight .* differs from the embed") as caught:
        read(tmp_path, tied=True, head=head)
    assert "tie_word_embeddings" in caught.value.hint
    assert "take it out of the weights" in caught.value.hint


def test_an_untied_head_is_used(tmp_path: Path):
    assert torch.equal(read(tmp_path, tied=False, head=EMBEDDING + 1).head, EMBEDDING + 1)
