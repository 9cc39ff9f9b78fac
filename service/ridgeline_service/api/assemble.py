"""The application put together from its parts; the only place that knows all of them."""

from __future__ import annotations

import uuid
from typing import Protocol

from ridgeline_service.api.app import App, Lifecycle
from ridgeline_service.api.control_port import Control
from ridgeline_service.api.dispatch import Dispatcher
from ridgeline_service.api.operations import alarms, autoscaling, identity, sagemaker
from ridgeline_service.api.operations.cloudwatch import CloudWatchOperations
from ridgeline_service.api.operations.logs import LogOperations
from ridgeline_service.api.rest import RestControl, create_rest_app
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.telemetry.logs import LogStore
from ridgeline_service.telemetry.metrics import ApiMetrics
from ridgeline_service.telemetry.samples import SampleStore


class FullControl(Control, RestControl, Protocol):
    """All that the application asks of the control plane."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def build_dispatcher(
    control: Control, settings: Settings, logs: LogStore, samples: SampleStore
) -> Dispatcher:
    return Dispatcher(
        {
            "sagemaker": sagemaker.table(control),
            "sts": identity.sts_table(settings, control.sessions),
            "iam": identity.iam_table(settings),
            "logs": LogOperations(logs, settings).table(),
            "application-autoscaling": autoscaling.table(control),
            "monitoring": CloudWatchOperations(samples).table() | alarms.table(control),
        },
        new_request_id=lambda: str(uuid.uuid4()),
    )


def build_app(
    control: FullControl, settings: Settings, data_dir: DataDir, internal_key: str
) -> App:
    logs = LogStore(data_dir)
    samples = SampleStore(data_dir.samples)
    dispatcher = build_dispatcher(control, settings, logs, samples)

    def start() -> None:
        dispatcher.warm()
        control.start()

    def stop() -> None:
        control.stop()
        samples.close()

    return App(
        dispatcher,
        create_rest_app(control, settings),
        internal_key=internal_key,
        metrics=ApiMetrics.create(),
        lifecycle=Lifecycle(start, stop),
    )
