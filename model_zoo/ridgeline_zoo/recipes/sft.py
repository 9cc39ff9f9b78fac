"""Supervised fine-tuning on chats: what the assistant says is learned, nothing else.

Channels: ``training`` (chats), ``model`` (the base) and, if wanted, ``validation``, whose files
hold questions: each file is asked before and after, and both figures are reported. General chats
are mixed in, because a small model forgets what it knew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ridgeline_recipes import formats
from ridgeline_recipes.checkpoints import fingerprint
from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.formats import Chat, Question
from ridgeline_recipes.instruction import TEMPLATE, instruction_format
from ridgeline_recipes.job import Job, main, say
from ridgeline_recipes.memory import available_memory, model_size, require_fit
from ridgeline_recipes.options import POSITIVE, SHARE, TuningOptions, option, parse
from ridgeline_recipes.records import jsonl_files, read_records
from ridgeline_recipes.sizing import longest_record, require_positions, setting_of

GENERAL = Path(__file__).with_name("general.jsonl")


@dataclass(frozen=True, kw_only=True)
class SftOptions(TuningOptions):
    """Full fine-tuning wants a lower rate: 5e-5 is a good start."""

    learning_rate: float = option(1e-3, "at its highest", within=POSITIVE)
    general_share: float = option(0.25, "of general chats among all", within=SHARE)


def sft(job: Job, given: Sequence[str]) -> int:
    options = parse(SftOptions, given)
    files = jsonl_files(job.training, "training", also=TEMPLATE)
    own = read_records(files, instruction_format(job.training) or formats.chat)
    questions = _questions(job)
    job.require_model()
    require_positions(job.model, options.max_length)
    general = general_chats(len(own), options.general_share, options.seed)
    texts = ([message.content for message in chat.messages] for chat in (*own, *general))
    longest = longest_record(job.model, texts)
    setting = setting_of(options, longest, records=len(own) + len(general))
    need = require_fit(model_size(job.model), setting, available_memory())
    say(f"{len(own)} chats, {len(general)} general ones mixed in; memory {need}")
    # Here and not above: what can be wrong was found before torch was loaded.
    from ridgeline_recipes.chat_tuning import tune_on_chats

    training = fingerprint(job, "sft", asdict(options), [*own, *general])
    return tune_on_chats(job, options, own, general, questions, training)


def general_chats(own: int, share: float, seed: int) -> list[Chat]:
    """So many general chats that they are ``share`` of all; each once before any comes twice."""
    chats = read_records([GENERAL], formats.chat)
    random.Random(seed).shuffle(chats)  # noqa: S311 - an order, not a secret
    wanted = round(own * share / (1 - share))
    return [chats[number % len(chats)] for number in range(wanted)]


def _questions(job: Job) -> dict[str, list[Question]]:
    """Sets of questions, by the names of their files."""
    if job.validation is None:
        return {}
    found: dict[str, Path] = {}
    for path in jsonl_files(job.validation, "validation"):
        other = found.setdefault(path.stem, path)
        if other != path:
            both = " and ".join(str(each.relative_to(job.validation)) for each in (other, path))
            raise RecipeFailed(
                f"Channel 'validation': {both} would give figures of one name. Rename one of them."
            )
    return {name: read_records([path], formats.question) for name, path in found.items()}


if __name__ == "__main__":
    main(sft)
