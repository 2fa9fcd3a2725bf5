"""Incidents: what an operator is told of the rows in alarm: where, since when, how far from normal and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["spike", "shift", "drift", "jitter", "loss"]
"""What an incident looks like; the rules are those of `ocad.detection.kinds.likeliest_kind`."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far one metric is from normal: `value` and `normal` in `unit`, `sigmas` in robust standard deviations.

    `value` is the metric's median over the incident's rows (for the kind `loss` the share of lost rows, unit `1`), `normal`
    the median of the rows before the onset; `sigmas` has the sign of `value - normal`.
    """

    value: float
    normal: float
    unit: str
    sigmas: float

    def to_json(self) -> dict[str, Any]:
        """The fields under their names."""
        return {"value": self.value, "normal": self.normal, "unit": self.unit, "sigmas": self.sigmas}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Deviation:
        """The deviation that `to_json` wrote."""
        return cls(float(value["value"]), float(value["normal"]), str(value["unit"]), float(value["sigmas"]))


@dataclass(frozen=True, slots=True)
class Incident:
    """Rows of one endpoint in alarm; times are µs since 1970 UTC."""

    id: str
    """A stable fingerprint of endpoint and start: 16 hex digits."""
    endpoint: str
    metrics: tuple[str, ...]
    """The metrics that left their normal range, the farthest first; never empty."""
    start_us: int
    end_us: int | None
    """The last row in alarm, or None while the incident is open."""
    kind: Kind
    score: float
    """The highest score so far."""
    detectors: dict[str, float]
    """The highest surprise by member, of those that agreed (at or above their own threshold), the highest first."""
    deviations: dict[str, Deviation]
    """By metric, for all of `metrics`."""
    rows: int
    """Rows in alarm so far."""

    @property
    def open(self) -> bool:
        """Whether the alarm still stands."""
        return self.end_us is None

    def to_json(self) -> dict[str, Any]:
        """JSON-able: `start` and `end` are ISO times in UTC, `end` is null while the incident is open."""
        return {
            "id": self.id,
            "endpoint": self.endpoint,
            "metrics": list(self.metrics),
            "start": iso_time(self.start_us),
            "end": None if self.end_us is None else iso_time(self.end_us),
            "kind": self.kind,
            "score": self.score,
            "detectors": dict(self.detectors),
            "deviations": {metric: deviation.to_json() for metric, deviation in self.deviations.items()},
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Incident:
        """The incident that `to_json` wrote."""
        return cls(
            id=str(value["id"]),
            endpoint=str(value["endpoint"]),
            metrics=tuple(value["metrics"]),
            start_us=time_us(value["start"]),
            end_us=None if value["end"] is None else time_us(value["end"]),
            kind=value["kind"],
            score=float(value["score"]),
            detectors={str(name): float(score) for name, score in value["detectors"].items()},
            deviations={str(metric): Deviation.from_json(item) for metric, item in value["deviations"].items()},
            rows=int(value["rows"]),
        )


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector found in a frame of `n` rows."""

    scores: NDArray[np.float64]
    """`(n,)`, in the frame's order."""
    alarms: NDArray[np.bool_]
    """`(n,)`: whether the endpoint was in alarm after the row."""
    members: dict[str, NDArray[np.float64]]
    """The surprise `(n,)` of each member by its reference; a plain detector is its own only member."""
    incidents: list[Incident]
    """In order of start, then endpoint; one that the frame's end cut short is still open."""
    counts: dict[str, int] = field(default_factory=dict)
    """`rows`, `endpoints`, `alarms` (rows in alarm), `incidents`, and `unseen` (endpoints never seen in training)."""


@dataclass(frozen=True, slots=True)
class PointResult:
    """What one arriving row meant; `incident` is the one that this row opened, carried on or closed, if any."""

    score: float
    alarm: bool
    members: dict[str, float]
    incident: Incident | None = None


def iso_time(moment_us: int) -> str:
    """µs since 1970 as ISO 8601 in UTC with microseconds: `2026-01-02T03:04:05.000006Z`."""
    seconds, micros = divmod(moment_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def time_us(moment: str) -> int:
    """The inverse of `iso_time`."""
    parsed = datetime.fromisoformat(moment)
    return int(parsed.replace(microsecond=0).timestamp()) * 1_000_000 + parsed.microsecond
