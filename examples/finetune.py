"""Teach a small model what it does not know: twelve facts about a shop that does not exist.

Run it beside ``ridgeline up``, in a shell that evaluated ``ridgeline env``. It asks the model of
the zoo, trains it on 300 chats, asks the tuned one, and deletes both endpoints at the end. The
first job makes the environment of its image, which takes minutes once.
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ridgeline import Predictor, ZooEstimator, ZooModel

MODEL = "smollm2-135m-instruct"
DATA = Path(__file__).with_name("quellbrook")
SETS = ("heldout", "general")
SHOWN = 6
Record = dict[str, object]


def main() -> None:
    console = Console()
    questions = {name: read(DATA / "questions" / f"{name}.jsonl") for name in SETS}
    before = asked(ZooModel(MODEL).deploy(), questions)
    estimator = ZooEstimator(MODEL)
    estimator.fit({"training": str(DATA / "train.jsonl"), "validation": str(DATA / "questions")})
    after = asked(estimator.deploy(), questions)

    table = Table("question", "before", "after")
    records = questions["heldout"]
    rows = list(zip(records, before["heldout"], after["heldout"], strict=True))
    for record, old, new in rows[:: len(rows) // SHOWN]:
        table.add_row(str(record["q"]), old, new)
    console.print(table)
    for name, records in questions.items():
        right = [
            sum(is_right(record, answer) for record, answer in zip(records, answers, strict=True))
            for answers in (before[name], after[name])
        ]
        console.print(f"{name}: of {len(records)}, {right[0]} right before and {right[1]} after")


def asked(predictor: Predictor, questions: dict[str, list[Record]]) -> dict[str, list[str]]:
    """Answers by set; the endpoint is deleted afterwards."""
    try:
        return {
            name: [
                predictor.chat(str(record["q"]), max_tokens=40, temperature=0) for record in records
            ]
            for name, records in questions.items()
        }
    finally:
        predictor.delete_endpoint()


def read(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_right(record: Record, answer: str) -> bool:
    accepted = record["any"]
    assert isinstance(accepted, list)
    return any(word in answer for word in accepted)


if __name__ == "__main__":
    main()
