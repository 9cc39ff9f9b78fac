"""CloudWatch metrics: put, read by period, list. Metric maths is not here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ridgeline_service.api.operations import Answer, Caller, Table
from ridgeline_service.errors import AwsError
from ridgeline_service.telemetry.samples import (
    Metric,
    Sample,
    SampleStore,
    metric_of,
    percentile,
)

MAX_DATAPOINTS = 100_800
MAX_STATISTICS_POINTS = 1440
MAX_LISTED = 500
_MAX_DATUMS = 1000
_MAX_QUERIES = 500
_MAX_VALUES = 150
_RECENT_S = 3 * 3600
_LARGEST = 2.0**360
_SHORT_PERIODS = (1, 5, 10, 20, 30)
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_STATISTICS = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")


class InvalidParameterValue(AwsError):
    code = "InvalidParameterValueException"
    http_status = 400


class InvalidParameterCombination(AwsError):
    code = "InvalidParameterCombinationException"
    http_status = 400


class MissingRequiredParameter(AwsError):
    code = "MissingRequiredParameterException"
    http_status = 400


class InvalidNextToken(AwsError):
    code = "InvalidNextToken"
    http_status = 400


class CloudWatchOperations:
    """The operations over one store. ``clock`` gives seconds since the epoch."""

    def __init__(self, store: SampleStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def table(self) -> Table:
        return {
            "PutMetricData": self.put_metric_data,
            "GetMetricData": self.get_metric_data,
            "GetMetricStatistics": self.get_metric_statistics,
            "ListMetrics": self.list_metrics,
        }

    def put_metric_data(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        datums = list(request.get("MetricData", ()))
        for entity in request.get("EntityMetricData", ()):
            datums.extend(entity.get("MetricData", ()))
        if not datums:
            raise MissingRequiredParameter("The parameter MetricData is required.")
        if len(datums) > _MAX_DATUMS:
            raise InvalidParameterValue(
                f"MetricData holds {len(datums)} metrics; a request may hold {_MAX_DATUMS}."
            )
        now = self._clock()
        self._store.put(
            [sample for datum in datums for sample in _samples(request["Namespace"], datum, now)]
        )
        return {}

    def get_metric_statistics(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        names = request.get("Statistics", [])
        extended = request.get("ExtendedStatistics", [])
        if not names and not extended:
            raise MissingRequiredParameter(
                "Provide Statistics or ExtendedStatistics: neither is given."
            )
        for name in extended:
            _check_statistic(name)
        start, end = _span(request)
        period = _period(request["Period"])
        if (end - start) / period > MAX_STATISTICS_POINTS:
            raise InvalidParameterCombination(
                f"You have requested up to {int((end - start) / period)} datapoints, which "
                f"exceeds the limit of {MAX_STATISTICS_POINTS}. Use a longer Period or a shorter "
                "time range."
            )
        metric = metric_of(
            request["Namespace"], request["MetricName"], request.get("Dimensions", ())
        )
        buckets = self._store.read(
            metric, start=start, end=end, period=period, unit=request.get("Unit")
        )
        return {
            "Label": metric.name,
            "Datapoints": [
                {
                    "Timestamp": _at(bucket.start),
                    "Unit": bucket.unit,
                    **{name: bucket.statistic(name) for name in names},
                    **(
                        {"ExtendedStatistics": {n: bucket.statistic(n) for n in extended}}
                        if extended
                        else {}
                    ),
                }
                for bucket in buckets
            ],
        }

    def get_metric_data(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        queries = request["MetricDataQueries"]
        if len(queries) > _MAX_QUERIES:
            raise InvalidParameterValue(
                f"MetricDataQueries holds {len(queries)} queries; a request may hold "
                f"{_MAX_QUERIES}."
            )
        ids = [query["Id"] for query in queries]
        if len(set(ids)) != len(ids):
            raise InvalidParameterValue("The Ids of MetricDataQueries must be unique.")
        for wrong in (each for each in ids if not _ID.fullmatch(each)):
            raise InvalidParameterValue(
                f"The Id {wrong[:60]!r} must begin with a small letter and hold letters, digits or "
                "underscores."
            )
        start, end = _span(request)
        limit = min(request.get("MaxDatapoints", MAX_DATAPOINTS), MAX_DATAPOINTS)
        if limit < 1:
            raise InvalidParameterValue("MaxDatapoints must be at least 1.")
        skip = _offset(request)
        newest_first = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results: list[dict[str, object]] = []
        seen = 0
        for query in queries:
            if not query.get("ReturnData", True):
                continue
            points = self._points(query, start, end)
            if newest_first:
                points.reverse()
            page = points[max(0, skip - seen) : max(0, skip + limit - seen)]
            seen += len(points)
            results.append(
                {
                    "Id": query["Id"],
                    "Label": query.get("Label") or query["MetricStat"]["Metric"]["MetricName"],
                    "Timestamps": [_at(time) for time, _ in page],
                    "Values": [value for _, value in page],
                    "StatusCode": "Complete" if seen <= skip + limit else "PartialData",
                }
            )
        answer: dict[str, object] = {"MetricDataResults": results, "Messages": []}
        if seen > skip + limit:
            answer["NextToken"] = str(skip + limit)
        return answer

    def list_metrics(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        newer = self._clock() - _RECENT_S if request.get("RecentlyActive") else 0.0
        wanted = request.get("Dimensions", ())
        found = [
            metric
            for metric in self._store.metrics(
                namespace=request.get("Namespace", ""),
                name=request.get("MetricName", ""),
                newer_than=newer,
            )
            if _has_dimensions(metric, wanted)
        ]
        skip = _offset(request)
        page = found[skip : skip + MAX_LISTED]
        answer: dict[str, object] = {
            "Metrics": [
                {
                    "Namespace": metric.namespace,
                    "MetricName": metric.name,
                    "Dimensions": [{"Name": n, "Value": v} for n, v in metric.dimensions],
                }
                for metric in page
            ]
        }
        if len(found) > skip + MAX_LISTED:
            answer["NextToken"] = str(skip + MAX_LISTED)
        return answer

    def _points(
        self, query: Mapping[str, Any], start: float, end: float
    ) -> list[tuple[float, float]]:
        """One value a period, oldest first."""
        if "Expression" in query or "MetricStat" not in query:
            raise InvalidParameterValue(
                f"Query {query['Id']!r} is not a MetricStat. Metric expressions are not supported: "
                "ask for the metrics and compute on their values."
            )
        stat = query["MetricStat"]
        wanted = stat["Metric"]
        if not wanted.get("Namespace") or not wanted.get("MetricName"):
            raise MissingRequiredParameter(
                f"Query {query['Id']!r} names no Namespace or no MetricName."
            )
        _check_statistic(stat["Stat"])
        metric = metric_of(wanted["Namespace"], wanted["MetricName"], wanted.get("Dimensions", ()))
        values = self._store.values(
            metric,
            stat["Stat"],
            start=start,
            end=end,
            period=_period(stat["Period"]),
            unit=stat.get("Unit"),
        )
        return list(values.items())


def _samples(namespace: str, datum: Mapping[str, Any], now: float) -> Iterator[Sample]:
    metric = metric_of(namespace, datum["MetricName"], datum.get("Dimensions", ()))
    stamp = datum.get("Timestamp")
    at = stamp.timestamp() if isinstance(stamp, datetime) else now
    unit = datum.get("Unit", "None")
    given = [key for key in ("Value", "Values", "StatisticValues") if key in datum]
    if len(given) != 1:
        raise InvalidParameterCombination(
            f"Metric {metric.name!r} must have exactly one of Value, Values and StatisticValues."
        )
    if given == ["StatisticValues"]:
        stats = datum["StatisticValues"]
        numbers = [stats[key] for key in ("SampleCount", "Sum", "Minimum", "Maximum")]
        _check_numbers(metric, numbers)
        yield Sample(metric, at, unit, *numbers)
        return
    values = datum.get("Values", [datum.get("Value")])
    counts = datum.get("Counts", [1.0] * len(values))
    if len(counts) != len(values) or len(values) > _MAX_VALUES:
        raise InvalidParameterValue(
            f"Metric {metric.name!r} has {len(values)} Values and {len(counts)} Counts: they must "
            f"be as many, and at most {_MAX_VALUES}."
        )
    _check_numbers(metric, [*values, *counts])
    for value, count in zip(values, counts, strict=True):
        yield Sample(metric, at, unit, count, value * count, value, value)


def _check_numbers(metric: Metric, numbers: list[float]) -> None:
    if any(abs(number) > _LARGEST for number in numbers):
        raise InvalidParameterValue(
            f"Metric {metric.name!r} has a value outside -2^360 to 2^360.",
        )


def _check_statistic(name: str) -> None:
    if name not in _STATISTICS and percentile(name) is None:
        raise InvalidParameterValue(
            f"Statistic {name[:60]!r} is not supported.",
            hint=f"Use {', '.join(_STATISTICS)} or a percentile such as p99.",
        )


def _period(seconds: int) -> int:
    if seconds not in _SHORT_PERIODS and seconds % 60:
        raise InvalidParameterValue(
            f"A Period of {seconds} s is not supported.",
            hint=f"Use {', '.join(map(str, _SHORT_PERIODS))} or a multiple of 60.",
        )
    return seconds


def _span(request: Mapping[str, Any]) -> tuple[float, float]:
    start, end = request["StartTime"].timestamp(), request["EndTime"].timestamp()
    if start >= end:
        raise InvalidParameterCombination("StartTime must be before EndTime.")
    return start, end


def _offset(request: Mapping[str, Any]) -> int:
    token = request.get("NextToken", "0")
    if not (token.isascii() and token.isdigit() and len(token) < 10):
        raise InvalidNextToken("The NextToken is not one that this operation gave.")
    return int(token)


def _has_dimensions(metric: Metric, wanted: list[Mapping[str, str]]) -> bool:
    have = dict(metric.dimensions)
    return all(
        item["Name"] in have and item.get("Value", have[item["Name"]]) == have[item["Name"]]
        for item in wanted
    )


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
