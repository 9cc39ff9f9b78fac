"""What reaches S3 while a script runs and at its end, of files that are hard to upload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ridgeline_jobs import BUCKET, Jobs, running_jobs
from ridgeline_testing import until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("uploads") / "data") as running:
        yield running


BAD_NAMES = """
import os, time
for folder in ("checkpoints", "model", "output/data"):
    os.makedirs(f"/opt/ml/{folder}", exist_ok=True)
    open(os.fsencode(f"/opt/ml/{folder}/") + b"\\xff.bin", "wb").write(b"1")
    open(f"/opt/ml/{folder}/good", "w").write("2")
for number in range(40):
    open("/opt/ml/checkpoints/.part", "w").write(str(number))
    os.rename("/opt/ml/checkpoints/.part", "/opt/ml/checkpoints/last")
    time.sleep(0.2)
print("written", flush=True)
"""


def test_a_name_that_s3_does_not_take_costs_that_file_alone(jobs: Jobs) -> None:
    name = jobs.create(
        BAD_NAMES,
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/bad-names"},
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out", "CompressionType": "NONE"},
    )

    def keys(prefix: str) -> list[str]:
        found = jobs.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"].removeprefix(prefix) for item in found]

    # What is replaced five times a second is there before the script ends.
    until(lambda: keys("bad-names/") == ["good", "last"], 60)
    assert not jobs.says(name, "written")
    described = jobs.wait(name, 60)
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: Checkpoints could not be uploaded")
    assert r"\xff.bin (its name is not UTF-8" in described["FailureReason"]
    assert keys(f"out/{name}/output/") == ["model/good", "output/good"]
    statuses = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert "Restarting" not in statuses
    assert described["BillableTimeInSeconds"] == described["TrainingTimeInSeconds"] >= 8
    assert jobs.lines(name).count("written") == 1


EVENTS = """
import os, time
folder = "/opt/ml/output/tensorboard/run"
os.makedirs(folder)
events = open(f"{folder}/events.out.tfevents.1", "w")
for step in range(80):
    events.write(f"{step};")
    events.flush()
    time.sleep(0.2)
print("written", flush=True)
events.write("end")
"""


def test_what_tensorboard_shows_is_in_s3_while_the_script_runs(jobs: Jobs) -> None:
    config = {"S3OutputPath": f"s3://{BUCKET}/tb"}
    name = jobs.create(EVENTS, TensorBoardOutputConfig=config)
    key = f"tb/{name}/tensorboard-output/run/events.out.tfevents.1"

    def shown() -> str:
        found = jobs.s3.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])
        return jobs.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() if found else ""

    until(lambda: "0;1;" in shown(), 60)
    assert not jobs.says(name, "written")
    assert jobs.wait(name)["TrainingJobStatus"] == "Completed"
    assert shown().endswith("79;end")
