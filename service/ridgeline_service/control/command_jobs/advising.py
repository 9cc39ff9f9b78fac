"""The work of an inference recommendations job: the planner's options as SageMaker tells them.

Figures are predicted, not measured: no endpoint is started. Instance types that the planner does
not know (processors, GPUs) are steps that failed, and say so.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ridgeline.errors import NotFound, RidgelineError
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.planner import Option, Target, make_plan
from ridgeline_service.control.command_jobs.life import Cancelled, CommandCancelled, CommandFailed
from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.planning import model_id_of
from ridgeline_service.control.models import containers_of
from ridgeline_service.control.names import MODEL
from ridgeline_service.endings import sentences
from ridgeline_service.objects.reading import S3Failed, S3Reader, parse_uri
from ridgeline_service.store.command_jobs import CommandJob
from ridgeline_service.store.resources import MODELS

_MOST = 10
_PROMPT, _ANSWER = 512, 128
"""Tokens of the request that latencies and prices stand for."""


class Advising:
    """``client`` makes an S3 client."""

    def __init__(self, context: Context, client: Callable[[], Any]) -> None:
        self._context = context
        self._client = client

    def __call__(self, job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        """Recommendations and steps. Raises CommandFailed and CommandCancelled."""
        asked = job.request["InputConfig"]
        limit_s = _latency_limit_s(job.request)
        try:
            config = self._config(asked)
            if cancelled():
                raise CommandCancelled
            plan = make_plan(config, Target(prompt=_PROMPT, answer=_ANSWER))
        except S3Failed as error:
            raise CommandFailed(f"ClientError: {error.message}") from error
        except RidgelineError as error:
            raise CommandFailed(sentences(error.message, error.hint or "")) from error
        fastest = {one.setting.instance.name: one for one in reversed(plan.options)}
        wanted = _types(job.request) or [f"ml.{name}" for name in _ranked(fastest.values())]
        most = (asked.get("ResourceLimit") or {}).get("MaxNumberOfTests", _MOST)
        steps = []
        for place, name in enumerate(wanted[:most]):
            option = _within(plan.options, name.removeprefix("ml."), limit_s)
            steps.append(_entry(place, name, option, plan.left_out, limit_s))
        kept = [one for one in steps if not one["failure"]]
        if not kept:
            raise CommandFailed(steps[0]["failure"] if steps else "No instance type was named.")
        ranked = sorted(kept, key=lambda one: one["metrics"].get("CostPerInference", float("inf")))
        return {"recommendations": ranked, "steps": steps}

    def _config(self, asked: Mapping[str, Any]) -> Mapping[str, object]:
        """The config.json of what is to be served: from its data, else by its name."""
        nearest = (asked.get("ContainerConfig") or {}).get("NearestModelName")
        name = asked.get("ModelName")
        if name is not None:
            with self._context.db.read() as connection:
                record = MODELS.get(connection, self._context.arns.of(MODEL, name))
            if record is None:
                raise CommandFailed(f"The model {name} was deleted.")
            [container, *_] = containers_of(record.request)
            uri = _data_of(container)
            if uri and (found := self._read(uri)) is not None:
                return found
            nearest = model_id_of(container.get("Environment") or {}) or nearest or name
        known = str(nearest)
        try:
            return find(known, "decoders").config
        except NotFound as error:
            raise CommandFailed(
                f"ClientError: the sizes of {known!r} are not known. Give the model data with a "
                "config.json, or a NearestModelName."
            ) from error

    def _read(self, uri: str) -> Mapping[str, object] | None:
        """The config.json at a prefix or in an archive."""
        reader = S3Reader(self._client())
        if not uri.endswith((".tar.gz", ".tgz")):
            try:
                found: Mapping[str, object] = json.loads(
                    reader.read(f"{uri.rstrip('/')}/config.json")
                )
            except S3Failed as error:
                if error.absent:
                    return None
                raise
            return found
        bucket, key = parse_uri(uri)
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "model.tar.gz"
            reader.download(bucket, key, archive, lambda count: None)
            with tarfile.open(archive) as packed:
                for member in packed:
                    if Path(member.name).name == "config.json" and member.isfile():
                        file = packed.extractfile(member)
                        return None if file is None else json.loads(file.read())
        return None


def _data_of(container: Mapping[str, Any]) -> str:
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    found: str = container.get("ModelDataUrl") or source.get("S3Uri") or ""
    return found


def _types(request: Mapping[str, Any]) -> list[str]:
    """The instance types that a request names, in its order."""
    asked = request["InputConfig"]
    if request["JobType"] == "Advanced":
        named = [one.get("InstanceType") for one in asked["EndpointConfigurations"]]
        return list(dict.fromkeys(one for one in named if one))
    return list((asked.get("ContainerConfig") or {}).get("SupportedInstanceTypes") or ())


def _ranked(options: Any) -> list[str]:
    priced = sorted(
        options, key=lambda one: (one.usd_per_million is None, one.usd_per_million or 0)
    )
    return [one.setting.instance.name for one in priced]


def _latency_limit_s(request: Mapping[str, Any]) -> float | None:
    thresholds = (request.get("StoppingConditions") or {}).get("ModelLatencyThresholds") or ()
    values = [one["ValueInMilliseconds"] for one in thresholds if "ValueInMilliseconds" in one]
    return min(values) / 1e3 if values else None


def _within(options: Any, name: str, limit_s: float | None) -> Option | None:
    """The cheapest option of an instance type that answers in time; else its fastest."""
    own = [one for one in options if one.setting.instance.name == name]
    fast = [one for one in own if limit_s is None or _latency_s(one) <= limit_s]
    return fast[0] if fast else min(own, key=_latency_s, default=None)


def _latency_s(option: Option) -> float:
    return option.ttft.seconds + option.tpot.seconds * (_ANSWER - 1)


def _entry(
    place: int,
    name: str,
    option: Option | None,
    left_out: Mapping[str, str],
    limit_s: float | None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": place, "instance_type": name, "instances": 1, "environment": [], "failure": "",
    }  # fmt: skip
    if option is None:
        reason = left_out.get(name.removeprefix("ml."), "only simulated Neuron types are predicted")
        return {**entry, "failure": f"{name}: {reason}."}
    latency = _latency_s(option)
    if limit_s is not None and latency > limit_s:
        words = f"{name} answers in {latency * 1e3:.0f} ms at best, the limit is"
        return {**entry, "failure": f"{words} {limit_s * 1e3:.0f} ms."}
    setting, rate = option.setting, option.tokens_s / _ANSWER
    limit = setting.instance.core_memory_bytes(setting.lnc)
    metrics: dict[str, Any] = {
        "MaxInvocations": int(rate * 60),
        "ModelLatency": round(latency * 1e3),
        "MemoryUtilization": round(100 * option.core_bytes / limit, 2),
    }
    price = setting.instance.price_usd_h
    if price is not None:
        metrics["CostPerHour"] = price
        metrics["CostPerInference"] = price / 3600 / rate
    environment = {
        "OPTION_TENSOR_PARALLEL_DEGREE": str(setting.tp),
        "OPTION_MAX_ROLLING_BATCH_SIZE": str(setting.batch),
        **({"OPTION_QUANTIZE": "int8"} if setting.quantized else {}),
    }
    parameters = [
        {"Key": key, "ValueType": "string", "Value": value} for key, value in environment.items()
    ]
    return {**entry, "metrics": metrics, "environment": parameters}
