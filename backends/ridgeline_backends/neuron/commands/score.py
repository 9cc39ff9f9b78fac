"""``ridgeline neuron score`` and ``fit``: predictions against published rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli._common import AsJson, print_table, say
from ridgeline_backends.neuron.commands.files import check_writable

_NAMED = 3

RowsFile = Annotated[
    Path, typer.Argument(metavar="ROWS.yaml", help="Rows in the format of the published ones.")
]


def score(rows_file: RowsFile, as_json: AsJson = False) -> None:
    """Predict every row of a file, and compare with what it measured."""
    from ridgeline_backends.neuron.calibration.rows import read_rows  # numpy: not for `ls`
    from ridgeline_backends.neuron.calibration.score import (
        not_compared,
        predict_row,
        score,
    )
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
            one.category, one.predicted, one.compared, one.refused,
            *("-" if share is None else f"{share:.1%}" for share in
              (one.mape, one.median, one.p90, one.bias, one.within_20, one.coverage)),
        )
        for one in score(predictions)
    ]  # fmt: skip
    print_table(("CATEGORY", "PREDICTED", "COMPARED", "REFUSED", *shares), table)
    _say("Refused", ((one.row.id, one.refused) for one in predictions if one.refused))
    _say("Not compared", not_compared(predictions))


def _say(what: str, rows: Iterable[tuple[str, str]]) -> None:
    """A line for each reason, with some of the ids that it is the reason of."""
    found = defaultdict(list)
    for name, reason in rows:
        found[reason.removeprefix(f"{name}: ")].append(name)
    for reason, ids in found.items():
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        say(f"{what}: {', '.join(ids[:_NAMED])}{more}: {reason}")


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
    from ridgeline_backends.neuron.calibration.fit import fit, observations, taught
    from ridgeline_backends.neuron.calibration.rows import SCORED, read_rows
    from ridgeline_backends.neuron.timing.coefficients import DATA

    output = output or DATA / "fitted.yaml"
    check_writable(output, "--output")
    if report is not None:
        check_writable(report, "--report")
    rows = [row for row in read_rows(rows_file) if row.category in SCORED]
    say(f"reading {len(rows)} rows: building what they ran")
    seen = observations(rows)
    fits = 1 + len(taught(seen))
    say(f"[1/{fits}] fit to all {len(seen)} fields")
    coefficients = fit(seen)
    found = leave_one_out(
        seen,
        coefficients,
        lambda model, place, _: say(f"[{place + 1}/{fits}] fit without {model}"),
    )
    write_fitted(output, coefficients, found)
    for name, value in asdict(coefficients).items():
        typer.echo(f"{name:20} {value:.6g}")
    if report is not None:
        from ridgeline_backends.neuron.calibration.report import accuracy_page

        say(f"writing {report}")
        report.write_text(accuracy_page(rows, seen, coefficients, found), encoding="utf-8")
