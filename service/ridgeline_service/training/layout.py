"""An instance's /opt/ml: where its parts lie outside and inside, and the files of its contract."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline_service.training.order import Order, Processing
from ridgeline_service.training.walking import opened_below, read_small

INSIDE = "/opt/ml"
CODE = f"{INSIDE}/code"
PROCESSING = f"{INSIDE}/processing"
MODEL = f"{INSIDE}/model"
OUTPUT = f"{INSIDE}/output"
DATA = f"{INSIDE}/input/data"
CONFIG = f"{INSIDE}/input/config"
NETWORK_INTERFACE = "lo"
INSTANCE_GROUP = "homogeneousCluster"
_FAILURE_BYTES = 16 << 10


@dataclass(frozen=True)
class Layout:
    """``root`` is what the sandbox shows at /opt/ml."""

    root: Path

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def output_data(self) -> Path:
        return self.root / "output" / "data"

    def channel(self, name: str) -> Path:
        return self.root / "input" / "data" / name

    def outside(self, inside: str) -> Path:
        """A path below /opt/ml as it is found from outside."""
        return self.root / inside.removeprefix(INSIDE).lstrip("/")

    def make(self, folders: Iterable[str]) -> None:
        for name in folders:
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def write_config(self, order: Order) -> None:
        """The files that SageMaker's training contract promises."""
        files = {
            "hyperparameters": dict(order.hyperparameters),
            "resourceconfig": resource_config(order),
            "inputdataconfig": input_data_config(order),
        }
        for name, value in files.items():
            path = self.root / "input" / "config" / f"{name}.json"
            path.write_text(json.dumps(value))

    def write_processing_config(self, order: Order, processing: Processing) -> None:
        """The same for SageMaker's processing contract."""
        folder = self.root / "config"
        files = {"processingjobconfig": processing.config, "resourceconfig": resource_config(order)}
        for name, value in files.items():
            (folder / f"{name}.json").write_text(json.dumps(value))

    def failure(self) -> str:
        """What the script wrote to /opt/ml/output/failure; empty if nothing."""
        return self.said("failure", _FAILURE_BYTES)

    def said(self, name: str, limit: int) -> str:
        """The beginning of a file in /opt/ml/output; empty if there is none."""
        with opened_below(self.root, "output") as folder:
            data = b"" if folder is None else read_small(folder, name, limit)
        return data.decode("utf-8", "replace").strip()


def resource_config(order: Order) -> dict[str, Any]:
    return {
        "current_host": order.host,
        "current_instance_type": order.instance_type,
        "current_group_name": INSTANCE_GROUP,
        "hosts": sorted(order.hosts),
        "instance_groups": [
            {
                "instance_group_name": INSTANCE_GROUP,
                "instance_type": order.instance_type,
                "hosts": sorted(order.hosts),
            }
        ],
        "network_interface_name": NETWORK_INTERFACE,
    }


def input_data_config(order: Order) -> dict[str, object]:
    found: dict[str, object] = {}
    for channel in order.channels:
        described = {
            "TrainingInputMode": channel.mode,
            "S3DistributionType": channel.distribution,
            "RecordWrapperType": "None",
        }
        if channel.content_type:
            described["ContentType"] = channel.content_type
        found[channel.name] = described
    return found
