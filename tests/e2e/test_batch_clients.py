"""Our client, its command line and botocore's waiters over processing and transform jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import PYTORCH_IMAGE
from ridgeline_transforms import MODEL, doubled, numbered

from ridgeline import (
    Model,
    ProcessingFailed,
    ProcessingInput,
    ProcessingOutput,
    Session,
    SKLearnProcessor,
    TransformFailed,
)
from ridgeline._progress import SilentProgress

pytestmark = pytest.mark.e2e

SCRIPT = """
import sys
from pathlib import Path

import sklearn

text = Path("/opt/ml/processing/input/data/d.csv").read_text()
if "--fail" in sys.argv:
    sys.exit("the data is from yesterday")
print("rows", len(text.split()))
Path("/opt/ml/processing/out/rows.txt").write_text(str(len(text.split())))
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("batch") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def session(jobs: Jobs) -> Session:
    return Session(data_dir=jobs.service.data_dir, progress=SilentProgress())


def read(jobs: Jobs, uri: str) -> str:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return jobs.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()


def test_a_processor_from_local_files_to_its_output(
    jobs: Jobs, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "d.csv").write_text(numbered(3))
    (tmp_path / "rows.py").write_text(SCRIPT)
    processor = SKLearnProcessor(sagemaker_session=session)
    places = {
        "inputs": [ProcessingInput(tmp_path / "data", "/opt/ml/processing/input/data")],
        "outputs": [ProcessingOutput("/opt/ml/processing/out", output_name="rows")],
    }
    processor.run(tmp_path / "rows.py", job_name="counts", **places)
    assert processor.latest_job is not None
    assert read(jobs, f"{processor.latest_job.output('rows')}/rows.txt") == "3"
    jobs.sagemaker.get_waiter("processing_job_completed_or_stopped").wait(
        ProcessingJobName="counts"
    )
    with pytest.raises(ProcessingFailed, match="the data is from yesterday"):
        processor.run(tmp_path / "rows.py", arguments=["--fail"], **places)
    cli = jobs.service.cli
    assert cli("logs", "counts").stdout.splitlines()[-1] == "rows 3"
    described = cli("describe", "counts").stdout
    assert "counts: Completed" in described
    assert "output rows: s3://" in described
    [line] = [line for line in cli("jobs").stdout.splitlines() if line.startswith("counts ")]
    assert line.split()[1:3] == ["processing", "Completed"]


def test_a_transformer_from_a_local_model_to_its_answers(
    jobs: Jobs, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "inference.py").write_text(MODEL)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weight.json").write_text("2")
    (tmp_path / "d.csv").write_text(numbered(4))
    model = Model(
        PYTORCH_IMAGE,
        tmp_path / "model",
        entry_point=str(tmp_path / "inference.py"),
        sagemaker_session=session,
    )
    transformer = model.transformer(1, "ml.m5.large", assemble_with="Line", accept="text/csv")
    as_csv = {"content_type": "text/csv", "split_type": "Line"}
    transformer.transform(tmp_path / "d.csv", job_name="doubles", **as_csv)
    assert read(jobs, f"{transformer.output_path}/d.csv.out") == doubled(4)
    jobs.sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName="doubles")
    (tmp_path / "d.csv").write_text("refuse\n")
    with pytest.raises(TransformFailed, match="no number in refuse"):
        transformer.transform(tmp_path / "d.csv", **as_csv)
    described = json.loads(jobs.service.cli("describe", "doubles", "--json").stdout)
    assert described["TransformJobStatus"] == "Completed"
    assert "asked 3" in jobs.service.cli("logs", "doubles").stdout
