"""What is made for a training script, and what becomes of what it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.training.causes import JobFailed
from ridgeline_service.training.contract import TrainingContract
from ridgeline_service.training.layout import Layout
from ridgeline_service.training.order import Order, OutputFolder, read_order, write_order
from ridgeline_service.training.report import Reporter

SHOWN = OutputFolder("TensorBoardOutputConfig", "/opt/ml/output/tensorboard", "s3://b/tb", True)


def test_what_tensorboard_shows_and_checkpoints_are_in_s3_at_the_end(
    order: Order, tmp_path: Path, s3: Any, reader: S3Reader
) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(TrainingContract.folders)
    s3.objects["tb/before"] = b"0"
    job = replace(order, tensorboard=SHOWN, checkpoint_uri="s3://b/c")
    contract = TrainingContract(job, layout, reader, tmp_path, lambda: None)
    contract.make()
    folder = layout.root / "output" / "tensorboard"
    assert list(folder.iterdir()) == []
    (folder / "run").mkdir()
    (folder / "run" / "events.out.tfevents.1").write_text("1")
    (layout.root / "checkpoints" / "last").write_text("2")
    contract.ended(Reporter(tmp_path, lambda: 0))
    assert s3.objects == {
        "tb/before": b"0",
        "tb/run/events.out.tfevents.1": b"1",
        "c/last": b"2",
    }


def test_a_job_that_was_stopped_has_the_model_that_there_is(
    order: Order, tmp_path: Path, s3: Any, reader: S3Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(TrainingContract.folders)
    reporter = Reporter(tmp_path, lambda: 0)
    job = replace(order, output_uri="s3://b/out", compress=False)
    contract = TrainingContract(job, layout, reader, tmp_path, lambda: None)
    contract.upload(reporter, stopped=True)
    assert (reporter.report.artifacts, s3.objects) == ("", {})
    (layout.model / "weights").write_text("1")
    (layout.model / "host").symlink_to("/etc/hosts")
    contract.upload(reporter, stopped=True)
    assert reporter.report.artifacts == "s3://b/out/model/"
    assert s3.objects == {"out/model/weights": b"1"}
    assert "host (a link to /etc/hosts, where no file of the job is)" in capsys.readouterr().out
    with pytest.raises(JobFailed, match="a link to /etc/hosts"):
        contract.upload(reporter, stopped=False)


def test_an_order_is_read_as_it_was_written(order: Order, tmp_path: Path) -> None:
    for job in (order, replace(order, tensorboard=SHOWN)):
        write_order(tmp_path, job)
        assert read_order(tmp_path) == job
