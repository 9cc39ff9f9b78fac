"""What JumpStart's clients start, under this name: the recipe that is usual for the base model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from classify import classify
from ridgeline_recipes.job import Job, main
from sft import sft


def transfer_learning(job: Job, given: Sequence[str]) -> int:
    job.require_model()
    names = json.loads((job.model / "config.json").read_text()).get("architectures") or [""]
    recipe = sft if str(names[0]).endswith("ForCausalLM") else classify
    return recipe(job, given)


if __name__ == "__main__":
    main(transfer_learning)
