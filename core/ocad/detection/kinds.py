"""What an incident looks like: each metric's rows during it against the rows before it, and the rules that name its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocad.detection.incidents import SHARE, Deviation, Kind, Measure
from ocad.detection.sums import run_lengths
from ocad.detection.units import TO_SIGMA

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SPIKE_ROWS = 3
"""The most rows of a spike."""
INVOLVED = 3.0
"""Robust sigmas from which a metric counts as involved."""
LOSSY = 0.2
"""Share of lost rows beyond the usual from which loss comes before what the rows that arrived look like."""
OUTAGE_ROWS = 5
"""Rows lost one after the other that are an outage, whatever share of the incident they are."""
_SPREAD_GROWN = 2.0
_TREND = 0.5
"""Share of the variance that a straight line explains, from which a slope dominates."""
RARE = 15
"""Percent of rows out of the normal range below which an incident is over, whatever detectors remember."""
_FLOOR = 0.01
"""Where the rows before do not vary at all, one hundredth of the level stands for their sigma."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted of one metric over all rows of an incident, however many: its extremes and its losses."""

    rows: int
    lost: float
    """Lost rows among them; of a metric that is a share, the sum of the shares."""
    run: int
    """The longest stretch of rows lost one after the other."""
    low: float
    low_us: int
    high: float
    """The least and the largest value and when each was first reached; NaN where nothing was measured."""
    high_us: int

    @classmethod
    def of(cls, during: Floats, unit: str = "", times: NDArray[np.int64] | None = None) -> Tally:
        """From the rows `(r,)`; `times` `(r,)` in µs, else their places."""
        moments = np.arange(len(during)) if times is None else times
        lost = lost_rows(during, unit)
        run = int(run_lengths(lost >= 0.5).max(initial=0))
        return cls(len(during), float(lost.sum()), run, *ends_of(during, moments))

    def peak(self, normal: float) -> tuple[float, int] | None:
        """The value farthest from `normal` and when it was first reached; None where nothing was measured."""
        if math.isnan(self.low):
            return None
        low = normal - self.low > self.high - normal
        return (self.low, self.low_us) if low else (self.high, self.high_us)


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
    out: int
    """Values more than `INVOLVED` sigmas from normal, of the rows that were kept."""
    lost: float
    """Share of lost rows during."""
    lost_before: float
    lost_sigmas: float
    """`lost - lost_before` in standard deviations of one row's loss."""
    tally: Tally
    unit: str

    @property
    def counts_loss(self) -> bool:
        """Whether the metric itself is a share of lost messages."""
        return self.unit == SHARE

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

    @property
    def peak_sigmas(self) -> float:
        """The farthest value, in sigmas from normal."""
        return (self.peak - self.normal) / self.sigma

    @property
    def brief(self) -> bool:
        """Whether few rows were far from normal and the others as usual."""
        return self.out <= SPIKE_ROWS and abs(self.level) < INVOLVED <= abs(self.peak_sigmas)

    @property
    def lossy(self) -> bool:
        """Whether more was lost than chance allows: an outage, or a share well beyond the usual."""
        if self.lost_sigmas * math.sqrt(self.tally.rows) < INVOLVED:
            return False
        return self.tally.run >= OUTAGE_ROWS or self.lost - self.lost_before >= LOSSY


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
        lost = float(lost_rows(before, unit).mean()) if len(before) else 0.0
        return cls(normal, _robust_sigma(known, normal or 0.0), lost, len(before))

    def reference(self, seen: Floats) -> tuple[float, float]:
        """Normal level and a sigma above 0 to hold the values `seen` against."""
        normal = self.normal if self.normal is not None else _median(seen) if len(seen) else 0.0
        if self.sigma:
            return normal, self.sigma
        largest = float(np.abs(seen).max()) if len(seen) else 0.0
        return normal, _FLOOR * max(abs(normal), largest) or 1.0

    def beyond(self, values: Floats) -> Flags:
        """Whether each of the `values` `(r,)` is lost or more than `INVOLVED` sigmas from normal, each by itself."""
        out = np.isnan(values)
        if self.normal is None:
            return out
        sigma = self.sigma or _FLOOR * np.maximum(abs(self.normal), np.abs(values))
        return np.asarray(out | (np.abs(values - self.normal) > INVOLVED * sigma))


def contrast(before: Baseline, during: Floats, unit: str = "", tally: Tally | None = None) -> Contrast:
    """The rows `during` `(r,)` an incident against what was normal before it.

    `tally` counts all rows where `during` holds a part of them.
    """
    seen = during[np.isfinite(during)]
    tally = tally or Tally.of(during, unit)
    normal, sigma = before.reference(seen)
    farthest, value = tally.peak(normal), _median(seen) if len(seen) else normal
    rise, trend = _line(seen)
    lost = tally.lost / tally.rows if tally.rows else 0.0
    chance = max(before.lost * (1 - before.lost), 1 / (before.rows + 1))
    return Contrast(
        normal=normal,
        sigma=sigma,
        value=value,
        peak=farthest[0] if farthest else normal,
        spread=_robust_sigma(seen, value),
        rise=rise,
        trend=trend,
        out=int((np.abs(seen - normal) > INVOLVED * sigma).sum()),
        lost=lost,
        lost_before=before.lost,
        lost_sigmas=(lost - before.lost) / math.sqrt(chance),
        tally=tally,
        unit=unit,
    )


def likeliest_kind(contrasts: Mapping[str, Contrast], rows: int) -> Kind:
    """The kind of an incident of `rows` rows: the first rule that holds for the metric that is farthest from normal.

    An outage, a fifth of the rows lost beyond the usual, or loss that is farther from normal than all else: `loss`. At most
    three rows far from normal: `spike`. The spread grew and the level stayed within it: `jitter`. A straight line explains
    the rows: `drift`. Otherwise `shift`.
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
    return "spike" if lead.brief else "shift"


def deviations_of(contrasts: Mapping[str, Contrast], kind: Kind) -> dict[str, Deviation]:
    """The deviation of each metric involved, the farthest first, for `loss` what was lost before all else; never empty."""
    found = {metric: _deviation(item, kind) for metric, item in contrasts.items()}
    told_as_loss = {metric for metric, item in contrasts.items() if kind == "loss" and _as_loss(item)}
    order = sorted(found, key=lambda metric: (metric not in told_as_loss, -abs(found[metric].sigmas)))
    involved = [metric for metric in order if abs(found[metric].sigmas) >= INVOLVED or contrasts[metric].lossy]
    return {metric: found[metric] for metric in involved or order[:1]}


def ends_of(values: Floats, moments: NDArray[np.int64]) -> tuple[float, int, float, int]:
    """The least and the largest of `values` `(r,)`, each with its first of `moments` `(r,)`; NaN where nothing was measured."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return math.nan, 0, math.nan, 0
    low, high = int(known[values[known].argmin()]), int(known[values[known].argmax()])
    return float(values[low]), int(moments[low]), float(values[high]), int(moments[high])


def lost_rows(values: Floats, unit: str) -> Floats:
    """How much of each row was lost, 0 to 1: all of it where there is no value, else the value in the unit `share`."""
    return np.where(np.isfinite(values), np.clip(values, 0, 1) if unit == SHARE else 0.0, 1.0)


def _deviation(found: Contrast, kind: Kind) -> Deviation:
    """In the terms of the kind: lost share, farthest value, spread, or level."""
    tally = found.tally
    peak, peak_us = tally.peak(found.normal) or (None, None)
    lost, rows = round(tally.lost, 3), tally.rows
    if kind == "loss" and _as_loss(found):
        if not found.counts_loss:
            peak = peak_us = None  # in the metric's unit, which is not that of the share
        size = found.lost_sigmas
        return Deviation(found.lost, found.lost_before, SHARE, size, peak, peak_us, lost, rows, measure="lost")
    value, normal, sigmas, level = found.value, found.normal, found.level, found.value
    measure: Measure = "level"
    if kind == "jitter" and found.growth - 1 > abs(found.level):
        value, normal, sigmas, measure = found.spread, found.sigma, found.growth - 1, "spread"
        level += found.spread
    elif kind == "spike" or abs(sigmas) < INVOLVED <= abs(found.peak_sigmas):
        value, sigmas, measure = found.peak, found.peak_sigmas, "peak"
        level = found.peak if kind == "spike" else level  # a single row does not lift what lasts
    times = level / found.normal if found.normal > 0 and not found.counts_loss else None
    return Deviation(value, normal, found.unit, sigmas, peak, peak_us, lost, rows, times, measure)


def _as_loss(found: Contrast) -> bool:
    return found.counts_loss or found.lossy or abs(found.lost_sigmas) >= abs(found.level)


def _lost_dominates(contrasts: Mapping[str, Contrast]) -> bool:
    measured = [found for found in contrasts.values() if not found.counts_loss]
    if any(found.lossy for found in contrasts.values()):
        return True
    if measured and min(found.lost for found in measured) == 1:
        return True  # and nothing was known before: there is no level to shift
    worst = max(contrasts.values(), key=lambda found: found.lost_sigmas)
    others = max((found.distance for found in measured), default=0.0)
    return worst.lost_sigmas >= INVOLVED and worst.lost_sigmas > others


def _robust_sigma(values: Floats, centre: float) -> float:
    """From the median absolute deviation; from the standard deviation where more than half of the rows are equal."""
    if len(values) < 2:
        return 0.0
    return TO_SIGMA * _median(np.abs(values - centre)) or float(np.std(values))


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
    with np.errstate(over="ignore"):  # of a value near the greatest the square is infinite, which explains nothing
        total = float(centred @ centred)
    slope = float(step @ centred) / float(step @ step)
    return slope * (len(values) - 1), (slope * float(step @ centred) / total if total else 0.0)
