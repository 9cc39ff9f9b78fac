"""The work of an inference recommendations job: settings under the traffic that it describes.

Figures are predicted by simulation, not measured: no endpoint is started. Instance types without
simulated devices (processors, GPUs) are steps that failed, and say so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ridgeline.errors import NotFound, RidgelineError
from ridgeline_backends.neuron.catalogue import find_language_model, with_published_length
from ridgeline_backends.neuron.jobs.traffic import levels_of
from ridgeline_service.control.children import ending_with_parent
from ridgeline_service.control.command_jobs.benchmarks import (
    Benchmark,
    benchmarks_of,
    offered_types,
    percentile_of,
)
from ridgeline_service.control.command_jobs.following import followed
from ridgeline_service.control.command_jobs.life import Cancelled, CommandFailed, checking
from ridgeline_service.control.command_jobs.payload import Lengths, payload_lengths
from ridgeline_service.control.command_jobs.served_model import ServedModel, read_model
from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.planning import model_id_of
from ridgeline_service.control.models import containers_of
from ridgeline_service.control.names import MODEL
from ridgeline_service.endings import sentences
from ridgeline_service.objects.reading import S3Failed, S3Reader
from ridgeline_service.store.command_jobs import CommandJob
from ridgeline_service.store.resources import MODELS

_PERCENTILE = "P95"
_LONGEST_S = 7200
"""A job's duration where it names none, as SageMaker has it."""

_COMMAND = ("-P", *ending_with_parent("ridgeline_backends.neuron.jobs.load_test"))


class Advising:
    """``client`` makes an S3 client."""

    def __init__(self, context: Context, client: Callable[[], Any]) -> None:
        self._context = context
        self._client = client

    def __call__(self, job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        """Recommendations and steps. Raises CommandFailed and CommandCancelled."""
        asked = job.request["InputConfig"]
        benchmarks = benchmarks_of(job.request, offered_types())
        begun = self._context.now()
        try:
            model = self._model(asked, checking(cancelled))
            lengths = self._lengths(asked, model, checking(cancelled))
        except S3Failed as error:
            raise CommandFailed(f"ClientError: {error.message}") from error
        except RidgelineError as error:
            raise CommandFailed(sentences(error.message, error.hint or "")) from error
        order = _order(job.request, model, lengths)
        told = [one for one in benchmarks if not one.refusal]
        tests = [one.order() for one in told]
        found = iter(_simulated({**order, "tests": tests}, cancelled) if tests else ())
        times = {"started": begun, "ended": self._context.now()}
        steps = [
            {**_entry(place, one, one.refusal or next(found)), **times}
            for place, one in enumerate(benchmarks)
        ]
        kept = [one for one in steps if not one["failure"]]
        if not kept:
            words = steps[0]["failure"] if steps else "No instance type was named."
            raise CommandFailed(words, {"recommendations": [], "steps": steps})
        ranked = sorted(kept, key=lambda one: one["metrics"].get("CostPerInference", float("inf")))
        return {"recommendations": ranked, "steps": steps}

    def _lengths(
        self, asked: Mapping[str, Any], model: ServedModel, check: Callable[[], None]
    ) -> Lengths:
        """Of the sample payload, where there is one."""
        payload = (asked.get("ContainerConfig") or {}).get("PayloadConfig") or {}
        uri = payload.get("SamplePayloadUrl")
        if not uri:
            return Lengths()
        return payload_lengths(S3Reader(self._client()), uri, model.count(), check)

    def _model(self, asked: Mapping[str, Any], check: Callable[[], None]) -> ServedModel:
        """What is to be served: from its data, else by its name."""
        nearest = (asked.get("ContainerConfig") or {}).get("NearestModelName")
        name = asked.get("ModelName")
        if name is not None:
            with self._context.db.read() as connection:
                record = MODELS.get(connection, self._context.arns.of(MODEL, name))
            if record is None:
                raise CommandFailed(f"The model {name} was deleted.")
            [container, *_] = containers_of(record.request)
            uri = _data_of(container)
            if uri:
                files = read_model(S3Reader(self._client()), uri, check)
                if files.config:
                    return files
            nearest = model_id_of(container.get("Environment") or {}) or nearest or name
        known = str(nearest)
        try:
            config = find_language_model(known).config
        except NotFound as error:
            raise CommandFailed(
                f"ClientError: the sizes of {known!r} are not known. Give the model data with a "
                "config.json, or a NearestModelName."
            ) from error
        return ServedModel(with_published_length(known, config))


def _data_of(container: Mapping[str, Any]) -> str:
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    found: str = container.get("ModelDataUrl") or source.get("S3Uri") or ""
    return found


def _order(request: Mapping[str, Any], model: ServedModel, lengths: Lengths) -> dict[str, Any]:
    """What `load_test` is to do, but for its tests."""
    asked, stopping = request["InputConfig"], request.get("StoppingConditions") or {}
    [threshold] = stopping.get("ModelLatencyThresholds") or [{}]
    limit_ms = threshold.get("ValueInMilliseconds")
    pattern = asked.get("TrafficPattern") or {}
    return {
        "config": model.config,
        **asdict(lengths),
        "levels": levels_of(pattern, asked.get("JobDurationInSeconds", _LONGEST_S)),
        "share": percentile_of(threshold.get("Percentile", _PERCENTILE)),
        "limit_s": None if limit_ms is None else limit_ms / 1e3,
        "enough_per_minute": stopping.get("MaxInvocations"),
        "stop_when_flat": stopping.get("FlatInvocations", "Stop") == "Stop",
    }


def _simulated(order: Mapping[str, Any], cancelled: Cancelled) -> Sequence[Any]:
    with subprocess.Popen(
        [sys.executable, *_COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
            result: Sequence[Any] = followed(process, cancelled)
            return result
        finally:
            if process.poll() is None:
                process.kill()


def _entry(place: int, one: Benchmark, found: Mapping[str, Any] | str) -> dict[str, Any]:
    environment = dict(one.environment)
    entry: dict[str, Any] = {
        "id": place, "instance_type": one.instance_type, "instances": 1, "failure": "",
    }  # fmt: skip
    if isinstance(found, str):
        said = found if found.endswith((".", "!", "?")) else f"{found}."
        words = f"{one.instance_type}: {said}" if one.instance_type else said
        return {**entry, "environment": _parameters(environment), "failure": words}
    metrics: dict[str, Any] = {
        "MaxInvocations": int(found["per_minute"]),
        "ModelLatency": round(found["latency_s"] * 1e3),
        "MemoryUtilization": round(100 * found["core_bytes"] / found["core_bytes_available"], 2),
    }
    price = found["usd_per_hour"]
    if price is not None:
        metrics["CostPerHour"] = price
        metrics["CostPerInference"] = price / 60 / found["per_minute"]
    environment = {**found["environment"], **environment}
    return {**entry, "metrics": metrics, "environment": _parameters(environment)}


def _parameters(environment: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"Key": key, "ValueType": "string", "Value": value} for key, value in environment.items()
    ]
