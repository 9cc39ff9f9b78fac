from __future__ import annotations

import json
from pathlib import Path

from ridgeline_recipes.metrics import Metrics


def test_a_figure_that_is_no_number_leaves_the_file_valid(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "data")
    metrics.report(final_loss=float("nan"), heldout_perplexity=float("inf"), heldout_texts=3)
    metrics.write()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((tmp_path / "data/metrics.json").read_text(), parse_constant=refuse)
    assert found == {"final_loss": None, "heldout_perplexity": None, "heldout_texts": 3}
