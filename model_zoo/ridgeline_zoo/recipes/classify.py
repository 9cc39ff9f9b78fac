"""Text classification with an encoder: texts get one of the labels that the training data has.

Channels: ``training`` (labelled texts), ``model`` (an encoder) and, if wanted, ``validation`` (more
of them); without it a tenth of the training data is held out. Accuracy on what is held out is
reported beside that of the commonest label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ridgeline_recipes import formats
from ridgeline_recipes.checkpoints import fingerprint
from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.formats import Labelled
from ridgeline_recipes.job import Job, main, say
from ridgeline_recipes.memory import available_memory, model_size, require_fit
from ridgeline_recipes.options import POSITIVE, Options, option, parse
from ridgeline_recipes.records import jsonl_files, read_records, validation_records, with_held_out
from ridgeline_recipes.sizing import longest_record, require_positions, setting_of


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(Options):
    epochs: float = option(4.0, "how often each record is seen", within=POSITIVE)
    learning_rate: float = option(2e-4, "at its highest", within=POSITIVE)
    batch_size: int = option(16, "records computed at once", within=POSITIVE)
    max_length: int = option(128, "tokens of a text; what is longer is cut", within=POSITIVE)


def classify(job: Job, given: Sequence[str]) -> int:
    options = parse(ClassifyOptions, given)
    files = jsonl_files(job.training, "training")
    records, held_out = with_held_out(
        read_records(files, formats.labelled),
        validation_records(job.validation, formats.labelled),
        options.seed,
        lambda record: record.label,
    )
    labels = known_labels(records, held_out)
    job.require_model()
    require_positions(job.model, options.max_length)
    tokens = longest_record(job.model, ([record.text] for record in records))
    setting = setting_of(options, tokens, records=len(records), logits=False)
    need = require_fit(model_size(job.model), setting, available_memory())
    say(f"{len(records)} texts of {len(labels)} labels, {len(held_out)} held out; memory {need}")
    # Here and not above: what can be wrong was found before torch was loaded.
    from ridgeline_recipes.label_tuning import tune_on_labels

    training = fingerprint(job, "classify", asdict(options), records)
    return tune_on_labels(job, options, labels, records, held_out, training)


def known_labels(records: Sequence[Labelled], held_out: Sequence[Labelled]) -> list[str]:
    """The labels of the training data, sorted. Raises RecipeFailed if there are too few, or if what
    is held out has others."""
    labels = sorted({record.label for record in records})
    if len(labels) < 2:
        raise RecipeFailed(
            f"The training data has one label, {labels[0]!r}; at least two are needed."
        )
    others = sorted({record.label for record in held_out} - set(labels))
    if others:
        raise RecipeFailed(
            f"Held-out texts have labels that no training text has: {', '.join(others)}. "
            f"Known: {', '.join(labels)}."
        )
    return labels


if __name__ == "__main__":
    main(classify)
