"""CloudWatch samples: kept in a small SQLite file, bounded, good enough to survive a restart.

Each row is one value and how often it occurred, or one statistic set. Aggregation over periods is
done on reading. Not meant to be durable to the last sample: a power cut may lose the newest.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_SAMPLES = 500_000
_PRUNE_EVERY = 5_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, dimensions TEXT NOT NULL,
    newest REAL NOT NULL, UNIQUE (namespace, name, dimensions)
);
CREATE TABLE IF NOT EXISTS samples (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL REFERENCES series (id), t REAL NOT NULL,
    unit TEXT NOT NULL, n REAL NOT NULL, total REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS samples_by_time ON samples (series, t);
"""
# Of any number of samples in one pass, as ``Bucket`` has it of few.
_ASKED = """
WITH asked AS (
    SELECT CAST((t - :origin) / :period AS INTEGER) AS slot, n, total, low, high FROM samples
    WHERE series = (SELECT id FROM series WHERE namespace = :namespace AND name = :name
        AND dimensions = :dimensions)
    AND t >= :start AND t < :end AND (:unit IS NULL OR unit = :unit)
)"""
_PLAIN = (
    _ASKED
    + """
SELECT slot, sum(n), sum(total), coalesce(sum(total) / nullif(sum(n), 0), 0), min(low), max(high)
FROM asked GROUP BY slot ORDER BY slot"""
)
_COLUMNS = {"SampleCount": 1, "Sum": 2, "Average": 3, "Minimum": 4, "Maximum": 5}
_PERCENTILE = (
    _ASKED  # noqa: S608 - constants
    + """, ordered AS (
    SELECT slot, coalesce(total / nullif(n, 0), total) AS value, n FROM asked
), counted AS (
    SELECT slot, value, sum(n) OVER (PARTITION BY slot ORDER BY value) AS seen,
        sum(n) OVER (PARTITION BY slot) AS whole FROM ordered
)
SELECT slot, min(value) FROM counted WHERE seen >= whole * :percent / 100 GROUP BY slot
ORDER BY slot"""
)


@dataclass(frozen=True)
class Metric:
    """A series: its name and its dimensions, sorted by name."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Sample:
    """``count`` observations at ``time`` (seconds since the epoch) between ``low`` and ``high``."""

    metric: Metric
    time: float
    unit: str
    count: float
    total: float
    low: float
    high: float


@dataclass(frozen=True)
class Bucket:
    """The samples of one unit in one period, which begins at ``start``."""

    start: float
    unit: str
    samples: tuple[tuple[float, float, float, float], ...]

    def statistic(self, name: str) -> float | None:
        """SampleCount, Sum, Average, Minimum, Maximum or a percentile ``pNN.N``; None for a name
        that is no statistic."""
        count = sum(n for n, _, _, _ in self.samples)
        total = sum(s for _, s, _, _ in self.samples)
        match name:
            case "SampleCount":
                return count
            case "Sum":
                return total
            case "Average":
                return total / count if count else 0.0
            case "Minimum":
                return min(low for _, _, low, _ in self.samples)
            case "Maximum":
                return max(high for _, _, _, high in self.samples)
        percent = percentile(name)
        return None if percent is None else self._percentile(percent, count)

    def _percentile(self, percent: float, count: float) -> float:
        ordered = sorted((s / n if n else s, n) for n, s, _, _ in self.samples)
        seen = 0.0
        for value, n in ordered:
            seen += n
            if seen >= count * percent / 100:
                return value
        return ordered[-1][0]


def percentile(name: str) -> float | None:
    """99.9 of ``p99.9``; None for a name that is no percentile."""
    try:
        value = float(name[1:]) if name[:1] == "p" and name[1:2].isdigit() else math.nan
    except ValueError:
        return None
    return value if 0 <= value <= 100 else None


class SampleStore:
    """Thread-safe. The file is made when it is first written or read."""

    def __init__(self, path: Path, *, max_samples: int = MAX_SAMPLES) -> None:
        self._path = path
        self._max = max_samples
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._since_pruned = 0

    def put(self, samples: Sequence[Sample]) -> None:
        """Add samples; beyond the bound the oldest ones go."""
        with self._lock, self._open() as connection:
            series: dict[Metric, int] = {}
            for metric in {sample.metric for sample in samples}:
                newest = max(sample.time for sample in samples if sample.metric == metric)
                key = (metric.namespace, metric.name, json.dumps(metric.dimensions))
                row = connection.execute(
                    "INSERT INTO series (namespace, name, dimensions, newest) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET newest = max(newest, excluded.newest) RETURNING id",
                    (*key, newest),
                ).fetchone()
                series[metric] = row[0]
            connection.executemany(
                "INSERT INTO samples (series, t, unit, n, total, low, high) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (series[s.metric], s.time, s.unit, s.count, s.total, s.low, s.high)
                    for s in samples
                ],
            )
            self._since_pruned += len(samples)
            if self._since_pruned >= min(_PRUNE_EVERY, self._max):
                self._prune(connection)

    def read(
        self,
        metric: Metric,
        *,
        start: float,
        end: float,
        period: float,
        unit: str | None = None,
        origin: float = 0.0,
    ) -> list[Bucket]:
        """Samples with ``start <= time < end`` by period and unit, oldest first. One of the
        periods begins at ``origin``."""
        with self._lock, self._open() as connection:
            rows = connection.execute(
                "SELECT t, unit, n, total, low, high FROM samples WHERE series = (SELECT id FROM "
                "series WHERE namespace = ? AND name = ? AND dimensions = ?) AND t >= ? AND t < ? "
                "ORDER BY t",
                (metric.namespace, metric.name, json.dumps(metric.dimensions), start, end),
            ).fetchall()
        found: dict[tuple[float, str], list[tuple[float, float, float, float]]] = {}
        for time, of_unit, n, total, low, high in rows:
            if unit is None or unit == of_unit:
                key = (time - (time - origin) % period, of_unit)
                found.setdefault(key, []).append((n, total, low, high))
        return [Bucket(start, of, tuple(values)) for (start, of), values in sorted(found.items())]

    def values(
        self,
        metric: Metric,
        statistic: str,
        *,
        start: float,
        end: float,
        period: float,
        unit: str | None = None,
        origin: float = 0.0,
    ) -> dict[float, float]:
        """The statistic of each period that has samples, by when it begins, oldest first. Units
        are not told apart unless one is asked for."""
        percent = percentile(statistic)
        query = _PLAIN if percent is None else _PERCENTILE
        values = {
            "namespace": metric.namespace,
            "name": metric.name,
            "dimensions": json.dumps(metric.dimensions),
            "start": start,
            "end": end,
            "period": period,
            "origin": origin,
            "unit": unit,
            "percent": percent,
        }
        with self._lock, self._open() as connection:
            rows = connection.execute(query, values).fetchall()
        column = _COLUMNS.get(statistic, 1)
        return {origin + row[0] * period: float(row[column]) for row in rows}

    def metrics(
        self, *, namespace: str = "", name: str = "", newer_than: float = 0
    ) -> list[Metric]:
        """Series in the order of their names."""
        with self._lock, self._open() as connection:
            rows = connection.execute(
                "SELECT namespace, name, dimensions FROM series WHERE (? = '' OR namespace = ?) "
                "AND (? = '' OR name = ?) AND newest >= ? ORDER BY namespace, name, dimensions",
                (namespace, namespace, name, name, newer_than),
            ).fetchall()
        return [Metric(space, of, _dimensions(text)) for space, of, text in rows]

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(_SCHEMA)
        return self._connection

    def _prune(self, connection: sqlite3.Connection) -> None:
        self._since_pruned = 0
        connection.execute(
            "DELETE FROM samples WHERE id <= (SELECT max(id) FROM samples) - ?", (self._max,)
        )
        connection.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM samples)")


def metric_of(namespace: str, name: str, dimensions: Iterable[Mapping[str, str]] = ()) -> Metric:
    return Metric(
        namespace, name, tuple(sorted((item["Name"], item["Value"]) for item in dimensions))
    )


def _dimensions(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))
