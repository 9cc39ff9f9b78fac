"""Continued pre-training: a base model goes on reading, texts of your own field.

Channels: ``training`` (texts), ``model`` (the base) and, if wanted, ``validation`` (more texts);
without it a tenth of the training data is held out. Perplexity on what is held out is reported
before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ridgeline_recipes import formats
from ridgeline_recipes.checkpoints import fingerprint
from ridgeline_recipes.job import Job, main, say
from ridgeline_recipes.memory import available_memory, model_size, require_fit
from ridgeline_recipes.options import POSITIVE, TuningOptions, option, parse
from ridgeline_recipes.records import jsonl_files, read_records, validation_records, with_held_out
from ridgeline_recipes.sizing import require_positions, setting_of


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TuningOptions):
    """Texts are cut into blocks of ``max_length`` tokens, so every step is full."""

    learning_rate: float = option(5e-4, "at its highest", within=POSITIVE)
    batch_size: int = option(4, "blocks computed at once", within=POSITIVE)
    max_length: int = option(128, "tokens of a block", within=POSITIVE)


def pretrain(job: Job, given: Sequence[str]) -> int:
    options = parse(PretrainOptions, given)
    files = jsonl_files(job.training, "training")
    texts, held_out = with_held_out(
        read_records(files, formats.text),
        validation_records(job.validation, formats.text),
        options.seed,
    )
    job.require_model()
    require_positions(job.model, options.max_length)
    setting = setting_of(options, options.max_length)
    need = require_fit(model_size(job.model), setting, available_memory())
    say(f"{len(texts)} texts, {len(held_out)} held out; memory {need}")
    # Here and not above: what can be wrong was found before torch was loaded.
    from ridgeline_recipes.text_tuning import tune_on_texts

    training = fingerprint(job, "pretrain", asdict(options), texts)
    return tune_on_texts(job, options, texts, held_out, training)


if __name__ == "__main__":
    main(pretrain)
