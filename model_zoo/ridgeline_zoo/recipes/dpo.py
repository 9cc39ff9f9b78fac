"""Preference alignment (DPO): answers that were chosen become likelier than those rejected.

Channels: ``training`` (pairs of answers), ``model`` (the base) and, if wanted, ``validation`` (more
pairs); without it a tenth of the training data is held out. The margin on what is held out is
reported before and after.
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
from ridgeline_recipes.sizing import longest_record, require_positions, setting_of


@dataclass(frozen=True, kw_only=True)
class DpoOptions(TuningOptions):
    """Full training wants a lower rate: 1e-6 is a good start."""

    learning_rate: float = option(5e-5, "at its highest", within=POSITIVE)
    batch_size: int = option(4, "pairs computed at once", within=POSITIVE)
    beta: float = option(0.1, "how closely the model keeps to its base", within=POSITIVE)


def dpo(job: Job, given: Sequence[str]) -> int:
    options = parse(DpoOptions, given)
    files = jsonl_files(job.training, "training")
    pairs, held_out = with_held_out(
        read_records(files, formats.preference),
        validation_records(job.validation, formats.preference),
        options.seed,
    )
    job.require_model()
    require_positions(job.model, options.max_length)
    texts = (
        [*(message.content for message in pair.prompt), answer]
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
    )
    longest = longest_record(job.model, texts)
    setting = setting_of(options, longest, records=len(pairs), sequences=2)
    need = require_fit(model_size(job.model), setting, available_memory())
    say(f"{len(pairs)} pairs, {len(held_out)} held out; memory {need}")
    # Here and not above: what can be wrong was found before torch was loaded.
    from ridgeline_recipes.preference_tuning import tune_on_preferences

    training = fingerprint(job, "dpo", asdict(options), pairs)
    return tune_on_preferences(job, options, options.beta, pairs, held_out, training)


if __name__ == "__main__":
    main(dpo)
