"""Incidents: what an operator is told of the rows in alarm: where, since when, how far from normal and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["spike", "shift", "drift", "jitter", "loss", "silent"]
"""What an incident looks like: by `ocad.detection.kinds.likeliest_kind`, and `silent` for an endpoint that sends no rows."""

Measure = Literal["level", "peak", "spread", "lost"]

SHARE = "share"
"""The unit of metrics that are themselves a share of lost messages, as `ccm` is, and of what an incident says of loss."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far one metric is from normal: `value` and `normal` in `unit`, `sigmas` in robust standard deviations.

    `value` is the metric's `level`, the median over the rows that tell the incident, or its `peak` (of a spike), its `spread`
    (of jitter), or the share of rows `lost` (unit `share`); `normal` is the same of the rows before, for a peak their median.
    `sigmas` has the sign of `value - normal`.
    """

    value: float
    normal: float
    unit: str
    sigmas: float
    peak: float | None = None
    """The metric's value farthest from its median before; None where it was not measured in `unit`."""
    peak_us: int | None = None
    """When it was first reached, in µs since 1970 UTC."""
    lost: float = 0.0
    """Rows without a value; of a metric that is a share of lost messages, the sum of these shares."""
    expected: int = 0
    """Rows that `lost` is out of; 0 where it was not counted."""
    times: float | None = None
    """The level as a multiple of the median before; None for loss and where that median is not above 0."""
    measure: Measure = "level"
    """What `value` and `normal` are."""

    @property
    def lost_share(self) -> float:
        """`lost` of `expected`, 0 to 1."""
        return min(1.0, self.lost / self.expected) if self.expected else 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields under their names; `peak_at` is an ISO time in UTC."""
        return {
            "value": self.value,
            "normal": self.normal,
            "unit": self.unit,
            "sigmas": self.sigmas,
            "peak": self.peak,
            "peak_at": None if self.peak_us is None else iso_time(self.peak_us),
            "lost": self.lost,
            "expected": self.expected,
            "times": self.times,
            "measure": self.measure,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Deviation:
        """The deviation that `to_json` wrote, now or before it knew of peaks and counts."""
        peak, peak_at, times = value.get("peak"), value.get("peak_at"), value.get("times")
        return cls(
            value=float(value["value"]),
            normal=float(value["normal"]),
            unit=str(value["unit"]),
            sigmas=float(value["sigmas"]),
            peak=None if peak is None else float(peak),
            peak_us=None if peak_at is None else time_us(peak_at),
            lost=float(value.get("lost") or 0),
            expected=int(value.get("expected") or 0),
            times=None if times is None else float(times),
            measure=value.get("measure", "level"),
        )


@dataclass(frozen=True, slots=True)
class Incident:
    """Rows of one endpoint that led to an alarm or were in it; times are µs since 1970 UTC."""

    id: str
    """A stable fingerprint of endpoint and start: 16 hex digits."""
    endpoint: str
    metrics: tuple[str, ...]
    """The metrics that left their normal range, the farthest first; all of the detector's for `silent`; never empty."""
    start_us: int
    """The first row of the evidence that led to the alarm."""
    end_us: int | None
    """The last row in alarm, or None while the incident is open."""
    kind: Kind
    score: float
    """The highest score so far."""
    detectors: dict[str, float]
    """The highest surprise by member, of those that agreed (at or above their own threshold), the highest first."""
    deviations: dict[str, Deviation]
    """By metric, for all of `metrics`; empty for `silent`, of which nothing was measured."""
    rows: int
    """Rows from the start so far; 0 for `silent`."""
    severity: str | None = None
    """`info`, `warning` or `critical` by `ocad.detection.alerts.rules.severity_of`; None where nobody has rated it."""

    @property
    def open(self) -> bool:
        """Whether the alarm still stands."""
        return self.end_us is None

    @property
    def lead(self) -> Deviation | None:
        """The deviation of the first metric."""
        return next(iter(self.deviations.values()), None)

    @property
    def loss(self) -> Deviation | None:
        """The deviation with the largest share of lost rows, where any was lost."""
        worst = max(self.deviations.values(), key=lambda found: found.lost_share, default=None)
        return worst if worst is not None and worst.lost else None

    def to_json(self) -> dict[str, Any]:
        """JSON-able: `start`, `end` and `peak_at` are ISO times in UTC, `end` is null while the incident is open.

        `peak` and `peak_at` are those of the first metric, `lost` and `expected` of the one that lost most, else null.
        """
        lead, loss = (None if found is None else found.to_json() for found in (self.lead, self.loss))
        return {
            "id": self.id,
            "endpoint": self.endpoint,
            "metrics": list(self.metrics),
            "start": iso_time(self.start_us),
            "end": None if self.end_us is None else iso_time(self.end_us),
            "kind": self.kind,
            "severity": self.severity,
            "score": self.score,
            "detectors": dict(self.detectors),
            "deviations": {metric: deviation.to_json() for metric, deviation in self.deviations.items()},
            **{name: lead and lead[name] for name in ("peak", "peak_at")},
            **{name: loss and loss[name] for name in ("lost", "expected")},
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
            severity=value.get("severity"),
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
    hot: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """`(n,)`: whether the row is evidence itself, by what the alarm rule sees; empty where there is no rule."""


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
