"""What an incident looks like: each metric's rows during it against the rows before it, and the rules that name its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocad.detection.incidents import Deviation, Kind

Floats = NDArray[np.float64]

SPIKE_ROWS = 3
"""The most rows of a spike."""
SHARE = "share"
"""The unit of metrics that are themselves a share of lost messages, as `ccm` is."""
INVOLVED = 3.0
"""Robust sigmas from which a metric counts as involved."""
_MOST_LOST = 0.5
"""Share of lost rows from which nothing else matters."""
_SPREAD_GROWN = 2.0
_TREND = 0.5
"""Share of the variance that a straight line explains, from which a slope dominates."""
_RARE = 0.15
"""Share of rows out of the normal range below which an incident is over, whatever detectors remember."""
_TO_SIGMA = 1.4826
"""A median absolute deviation times this is a normal distribution's standard deviation."""
_FLOOR = 0.01
"""Where the rows before do not vary at all, one hundredth of the level stands for their sigma."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One metric during an incident against the same metric before; `sigmas` are robust ones of the rows before."""

    normal: float
    """Median before, in the metric's unit."""
    sigma: float
    """Robust standard deviation before, in the metric's unit; above 0."""
    value: float
    """Median during, in the metric's unit."""
    peak: float
    """The value during the incident that is farthest from normal, in the metric's unit."""
    spread: float
    """Robust standard deviation during, in the metric's unit."""
    rise: float
    """How far a straight line through the rows rises from the first to the last, in the metric's unit."""
    trend: float
    """Share of the variance that this line explains, 0 to 1."""
    lost: float
    """Share of lost rows during."""
    lost_before: float
    lost_sigmas: float
    """`lost - lost_before` in standard deviations of one row's loss."""
    counts_loss: bool
    """Whether the metric itself is a share of lost messages."""

    @property
    def level(self) -> float:
        """Median during, in sigmas from normal."""
        return (self.value - self.normal) / self.sigma

    @property
    def growth(self) -> float:
        """Spread during as a multiple of the spread before."""
        return self.spread / self.sigma

    @property
    def distance(self) -> float:
        """How far the metric is from normal by its level, spread or slope, in sigmas."""
        return max(abs(self.level), self.growth - 1, abs(self.rise) / (2 * self.sigma))


@dataclass(frozen=True, slots=True)
class Baseline:
    """One metric before an incident: what is normal."""

    normal: float | None
    """Median in the metric's unit; None where no value is known."""
    sigma: float
    """Robust standard deviation in the metric's unit; 0 where nothing varies."""
    lost: float
    """Share of lost rows."""
    rows: int

    @classmethod
    def of(cls, before: Floats, unit: str = "") -> Baseline:
        """From the rows `(b,)` before; NaN is a lost row, in the unit `share` the value itself is loss."""
        known = before[np.isfinite(before)]
        normal = _median(known) if len(known) else None
        return cls(normal, _robust_sigma(known, normal or 0.0), _lost(before, known, unit), len(before))

    def reference(self, seen: Floats) -> tuple[float, float]:
        """Normal level and a sigma above 0 to hold the values `seen` against."""
        normal = self.normal if self.normal is not None else _median(seen) if len(seen) else 0.0
        if self.sigma:
            return normal, self.sigma
        largest = float(np.abs(seen).max()) if len(seen) else 0.0
        return normal, _FLOOR * max(abs(normal), largest) or 1.0


def contrast(before: Baseline, during: Floats, unit: str = "") -> Contrast:
    """The rows `during` `(r,)` an incident against what was normal before it."""
    seen = during[np.isfinite(during)]
    lost = _lost(during, seen, unit)
    normal, sigma = before.reference(seen)
    value = _median(seen) if len(seen) else normal
    peak = float(seen[np.abs(seen - normal).argmax()]) if len(seen) else normal
    rise, trend = _line(seen)
    chance = max(before.lost * (1 - before.lost), 1 / (before.rows + 1))
    return Contrast(
        normal=normal,
        sigma=sigma,
        value=value,
        peak=peak,
        spread=_robust_sigma(seen, value),
        rise=rise,
        trend=trend,
        lost=lost,
        lost_before=before.lost,
        lost_sigmas=(lost - before.lost) / math.sqrt(chance),
        counts_loss=unit == SHARE,
    )


def telling_rows(before: Sequence[Baseline], during: Floats) -> int:
    """How many of the rows `during` `(r, m)` count: up to where rows with a metric out of its normal range get rare.

    Detectors remember: some are still surprised when a link has long been normal again. At least one row counts.
    """
    out = np.isnan(during)
    for column, baseline in enumerate(before):
        normal, sigma = baseline.reference(during[~out[:, column], column])
        out[:, column] |= np.abs(during[:, column] - normal) > INVOLVED * sigma
    excess = np.cumsum(out.any(axis=1) - _RARE)
    last = int(excess.argmax())
    return last + 1 if excess[last] > 0 else len(during)


def likeliest_kind(contrasts: Mapping[str, Contrast], rows: int) -> Kind:
    """The kind of an incident of `rows` rows: the first rule that holds for the metric that is farthest from normal.

    Lost rows dominate: `loss`. At most three rows: `spike`. The spread grew and the level stayed within it: `jitter`. A
    straight line explains the rows: `drift`. Otherwise `shift`.
    """
    if _lost_dominates(contrasts):
        return "loss"
    if rows <= SPIKE_ROWS:
        return "spike"
    lead = max(contrasts.values(), key=lambda found: (not found.counts_loss, found.distance))
    if lead.trend >= _TREND and abs(lead.rise) >= max(INVOLVED * lead.sigma, abs(lead.value - lead.normal) / 2):
        return "drift"
    if lead.growth >= _SPREAD_GROWN and abs(lead.level) < lead.growth:
        return "jitter"
    return "shift"


def deviations_of(contrasts: Mapping[str, Contrast], kind: Kind, units: Mapping[str, str]) -> dict[str, Deviation]:
    """The deviation of each metric involved, the farthest first; never empty."""
    found = {metric: _deviation(item, kind, units.get(metric, "")) for metric, item in contrasts.items()}
    order = sorted(found, key=lambda metric: -abs(found[metric].sigmas))
    involved = [metric for metric in order if abs(found[metric].sigmas) >= INVOLVED]
    return {metric: found[metric] for metric in involved or order[:1]}


def _deviation(found: Contrast, kind: Kind, unit: str) -> Deviation:
    """In the terms of the kind: lost share, farthest value, spread, or level."""
    if kind == "loss" and (found.counts_loss or abs(found.lost_sigmas) >= abs(found.level)):
        return Deviation(found.lost, found.lost_before, SHARE, found.lost_sigmas)
    if kind == "spike":
        return Deviation(found.peak, found.normal, unit, (found.peak - found.normal) / found.sigma)
    if kind == "jitter" and found.growth - 1 > abs(found.level):
        return Deviation(found.spread, found.sigma, unit, found.growth - 1)
    return Deviation(found.value, found.normal, unit, found.level)


def _lost_dominates(contrasts: Mapping[str, Contrast]) -> bool:
    worst = max(contrasts.values(), key=lambda found: found.lost_sigmas)
    if worst.lost - worst.lost_before >= _MOST_LOST:
        return True
    measured = [found for found in contrasts.values() if not found.counts_loss]
    if measured and min(found.lost for found in measured) == 1:
        return True  # and nothing was known before: there is no level to shift
    others = max((found.distance for found in measured), default=0.0)
    return worst.lost_sigmas >= INVOLVED and worst.lost_sigmas > others


def _lost(rows: Floats, finite: Floats, unit: str) -> float:
    if not len(rows):
        return 0.0
    missing = len(rows) - len(finite)
    return float((missing + (np.clip(finite, 0, 1).sum() if unit == SHARE else 0)) / len(rows))


def _robust_sigma(values: Floats, centre: float) -> float:
    """From the median absolute deviation; from the standard deviation where more than half of the rows are equal."""
    if len(values) < 2:
        return 0.0
    return _TO_SIGMA * _median(np.abs(values - centre)) or float(np.std(values))


def _median(values: Floats) -> float:
    """As `numpy.median`, which takes ten times as long for the few rows of an incident."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _line(values: Floats) -> tuple[float, float]:
    """Rise over the rows and explained share of the least-squares line."""
    if len(values) <= SPIKE_ROWS:
        return 0.0, 0.0
    step = np.arange(len(values)) - (len(values) - 1) / 2
    centred = values - values.mean()
    total = float(centred @ centred)
    slope = float(step @ centred) / float(step @ step)
    return slope * (len(values) - 1), (slope * float(step @ centred) / total if total else 0.0)
