from __future__ import annotations

import pytest

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.options import TuningOptions, parse


def test_hyperparameters_as_jobs_pass_them() -> None:
    found = parse(
        TuningOptions,
        ["--epochs", "2.5", "--batch-size", "4.0", "--gradient_checkpointing", "True"]
        + ["--method=full", "--learning_rate", "1e-5"],
    )
    assert (found.epochs, found.batch_size, found.learning_rate) == (2.5, 4, 1e-5)
    assert found.gradient_checkpointing
    assert found.rank == 0
    assert found.chosen_dtype == "fp32"


def test_what_is_not_given_keeps_its_default() -> None:
    assert parse(TuningOptions, []) == TuningOptions()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--epoch", "3"], "no hyperparameter 'epoch'. Did you mean 'epochs'?"),
        (["--batch_size", "0"], "batch_size: expected a number above 0, not '0'"),
        (["--batch_size", "2.5"], "batch_size: expected a whole number, not '2.5'"),
        (["--batch_size", "inf"], "batch_size: expected a whole number, not 'inf'"),
        (["--learning_rate", "nan"], "learning_rate: expected a number, not 'nan'"),
        (["--learning_rate", "fast"], "learning_rate: expected a number, not 'fast'"),
        (["--method", "qlora"], "method: expected 'lora' or 'full', not 'qlora'"),
        (["--gradient_checkpointing", "perhaps"], "expected true or false, not 'perhaps'"),
        (["--epochs"], "expected one argument"),
        (["3"], "no hyperparameter '3'"),
    ],
)
def test_a_wrong_hyperparameter_is_named(given: list[str], message: str) -> None:
    with pytest.raises(RecipeFailed) as caught:
        parse(TuningOptions, given)
    assert message in str(caught.value)
