"""Asks a model questions, and counts which of its answers hold what is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ridgeline_recipes.formats import Question

_AT_ONCE = 16
_MOST_TOKENS = 40


@dataclass(frozen=True)
class Answer:
    question: Question
    text: str

    @property
    def right(self) -> bool:
        return any(accepted in self.text for accepted in self.question.accepted)


def ask(model: Any, tokenizer: Any, template: str, questions: Sequence[Question]) -> list[Answer]:
    """Greedy answers, each in a chat of its own."""
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question.question}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=template,
        )
        for question in questions
    ]
    model.eval()
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    answers = []
    for start in range(0, len(prompts), _AT_ONCE):
        batch = tokenizer(
            prompts[start : start + _AT_ONCE],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            made = model.generate(
                **batch,
                max_new_tokens=_MOST_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(
            made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        asked = questions[start : start + _AT_ONCE]
        answers += [Answer(each, text) for each, text in zip(asked, texts, strict=True)]
    tokenizer.padding_side = side
    return answers


def right(answers: Sequence[Answer]) -> int:
    return sum(answer.right for answer in answers)


def lost(before: Sequence[Answer], after: Sequence[Answer]) -> int:
    """How many were right and are no longer."""
    return sum(a.right and not b.right for a, b in zip(before, after, strict=True))


def write_answers(path: Path, before: Sequence[Answer], after: Sequence[Answer]) -> None:
    """Questions with both answers, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for old, new in zip(before, after, strict=True):
            record = {
                "q": old.question.question,
                "before": old.text,
                "after": new.text,
                "right_before": old.right,
                "right_after": new.right,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
