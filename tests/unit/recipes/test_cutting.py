"""Records whose prompts leave no room for an answer are named, and never all left out."""

from __future__ import annotations

import pytest

from ridgeline_recipes.cutting import Row, learnable
from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.template import IGNORED, Encoded

WHOLE = Encoded((1, 2), (IGNORED, 2), cut=False)
CUT = Encoded((1, 2), (IGNORED, 2), cut=True)
MASKED = Encoded((1, 2), (IGNORED, IGNORED), cut=True)


def test_what_is_left_out_and_what_is_cut_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(each, f"train.jsonl:{each}", (WHOLE, CUT)) for each in (1, 2)]
    rows.insert(1, Row(9, "train.jsonl:9", (WHOLE, MASKED)))
    assert [row.record for row in learnable(rows, "pairs", 2, required=True)] == [1, 2]
    assert capsys.readouterr().out.splitlines() == [
        "1 of 3 pairs left out: the prompt alone fills max_length=2 tokens (train.jsonl:9). "
        "Raise max_length or shorten the prompts.",
        "2 of 3 pairs are longer than max_length=2 and are cut",
    ]


def test_what_fits_is_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert learnable([Row("a", "train.jsonl:1", (WHOLE,))], "chats", 2, required=True)
    assert learnable([], "general chats", 2, required=False) == []
    assert not capsys.readouterr().out


def test_nothing_left_is_refused() -> None:
    rows = [Row(each, f"train.jsonl:{each}", (MASKED,)) for each in range(1, 13)]
    with pytest.raises(RecipeFailed) as caught:
        learnable(rows, "chats", 2, required=True)
    assert str(caught.value).startswith("Nothing is left of the chats: the prompt alone fills ")
    assert "train.jsonl:10, 2 more). Raise max_length or shorten the prompts." in str(caught.value)
    assert learnable(rows, "held-out pairs", 2, required=False) == []
