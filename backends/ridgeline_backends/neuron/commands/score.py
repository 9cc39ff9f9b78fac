"""``ridgeline neuron score`` and ``fit``: predictions against published rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli._common import AsJson, print_table, say

if TYPE_CHECKING:
    from ridgeline_backends.neuron.calibration.score import RowPrediction

_NAMED = 3

RowsFile = Annotated[
    Path, typer.Argument(metavar="ROWS.yaml", help="Rows in the format of the published ones.")
]


def score(rows_file: RowsFile, as_json: AsJson = False) -> None:
    """Predict every row of a file, and compare with what it measured."""
    from ridgeline_backends.neuron.calibration.rows import read_rows  # numpy: not for `ls`
    from ridgeline_backends.neuron.calibration.score import predict_row, score
    from ridgeline_backends.neuron.timing.predict import calibration

    known = calibration()
    predictions = [predict_row(row, known) for row in read_rows(rows_file)]
    if as_json:
        for one in predictions:
            typer.echo(json.dumps(one.as_json()))
        return
    shares = ("MAPE", "MEDIAN", "P90", "BIAS", "WITHIN 20%", "COVERED")
    table = [
        (
            one.category, one.predicted, one.refused,
            *(f"{share:.1%}" for share in
              (one.mape, one.median, one.p90, one.bias, one.within_20, one.coverage)),
        )
        for one in score(predictions)
    ]  # fmt: skip
    print_table(("CATEGORY", "PREDICTED", "REFUSED", *shares), table)
    for reason, ids in _refusals(predictions).items():
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        say(f"Refused: {', '.join(ids[:_NAMED])}{more}: {reason}")


def _refusals(predictions: Iterable[RowPrediction]) -> dict[str, list[str]]:
    """The rows that are refused for the same reason, by that reason."""
    found = defaultdict(list)
    for one in predictions:
        if one.refused:
            found[one.refused.removeprefix(f"{one.row.id}: ")].append(one.row.id)
    return found


def fit(
    rows_file: RowsFile,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the accuracy page there.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the fitted values there.")
    ] = None,
) -> None:
    """Fit the coefficients to rows, and measure the fit on architectures that it has not seen."""
    from ridgeline_backends.neuron.calibration.evaluate import (  # numpy: not for `ls`
        leave_one_out,
        write_fitted,
    )
    from ridgeline_backends.neuron.calibration.fit import fit, observations
    from ridgeline_backends.neuron.calibration.rows import SCORED, read_rows
    from ridgeline_backends.neuron.timing.coefficients import DATA

    rows = [row for row in read_rows(rows_file) if row.category in SCORED]
    seen = observations(rows)
    coefficients = fit(seen)
    found = leave_one_out(seen, coefficients)
    write_fitted(output or DATA / "fitted.yaml", coefficients, found)
    for name, value in asdict(coefficients).items():
        typer.echo(f"{name:20} {value:.6g}")
    if report is not None:
        from ridgeline_backends.neuron.calibration.report import accuracy_page

        report.write_text(accuracy_page(rows, seen, coefficients, found), encoding="utf-8")
