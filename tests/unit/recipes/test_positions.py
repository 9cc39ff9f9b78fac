"""How many tokens a base has places for, by its config.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.sizing import require_positions


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"text_config": {"max_position_embeddings": 256}}, 256),
        ({"model_type": "gpt2", "n_positions": 128}, 128),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": None}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
    ],
)
def test_more_tokens_than_positions_are_refused(
    tmp_path: Path, config: dict[str, object], most: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    require_positions(tmp_path, most)
    with pytest.raises(RecipeFailed, match=f"at most {most} tokens, not {most + 1}"):
        require_positions(tmp_path, most + 1)


def test_a_base_without_a_limit_takes_any_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    require_positions(tmp_path, 1 << 20)
