"""What held-out normal rows say of an endpoint's scores: the unit that raw scores are counted in, and how rare a score is.

The unit is linear and bounded, so that calibration can make no alarm impossible. The surprise of a score is -log10 of the
share of normal rows that reach it: 3 is one row in 1,000. It decides about no alarm. It is measured per endpoint, with
the rows of all endpoints for those that have too few; above the 98 % quantile a generalised Pareto tail goes on without
bound (Pickands 1975), fitted by probability-weighted moments (Hosking and Wallis 1987).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.units import ALARM, TO_SIGMA, rarely_reached
from ocad.errors import DataError

Floats = NDArray[np.float64]

ENOUGH_ROWS = 200
"""Held-out rows from which an endpoint has its own calibration."""
KNOTS = 128
"""The most knots of a curve: so few that a difference in the last digits of a score is not magnified."""
_CLEAR = 1.05
"""Where the highest score that is possible must lie at least."""
_TAIL_SHARE = 0.02
_HEAVIEST = 0.9
"""The largest tail index: the mean of the tail is finite below 1."""
_SAME = 1e-9
"""Scores closer than this share of their spread count as one: rounding must not look like a step."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Surprise by raw score: linear between the knots, 0 below the first, a Pareto tail above the last."""

    scores: tuple[float, ...]
    surprises: tuple[float, ...]
    index: float
    """The tail index ξ, 0 for an exponential tail."""
    scale: float
    """The tail's scale σ, in the unit of the scores."""
    rows: int

    @classmethod
    def fit(cls, scores: Floats) -> Curve:
        """From held-out normal scores `(n,)`; raises `DataError` when there is none, or one that is not finite."""
        if len(scores) == 0 or not np.isfinite(scores).all():
            raise DataError("no finite held-out score to calibrate on", "give more normal rows to the validation part")
        ordered = np.sort(scores.astype(np.float64))
        spread = float(ordered[-1] - ordered[0])
        first = np.concatenate([[True], np.diff(ordered) > _SAME * spread])
        values, reaching = ordered[first], len(ordered) - np.flatnonzero(first)
        # the tail begins at the lowest score that at most 2 % of the rows reach, or at the highest of all
        start = min(int(np.searchsorted(-reaching, -_TAIL_SHARE * len(ordered))), len(values) - 1)
        kept = np.unique(np.linspace(0, start, min(start + 1, KNOTS)).round().astype(np.int64))
        surprises = -np.log10((reaching[kept] + 1) / (len(ordered) + 1))
        surprises = np.maximum(surprises, 0.0)
        index, scale = _tail(ordered[ordered >= values[start]] - values[start])
        unit = max(1.0, abs(float(values[start])))
        scale = max(scale or float(np.std(ordered)) or unit, _SAME * unit)
        return cls(tuple(values[kept].tolist()), tuple(surprises.tolist()), index, scale, len(ordered))

    def surprise(self, scores: Floats) -> Floats:
        """The surprise of raw `scores` `(n,)`: from 0, never falling, rising without bound in the tail."""
        result = np.interp(scores, self.scores, self.surprises, left=0.0)
        tail = scores > self.scores[-1]
        result[tail] = [self.surprise_point(score) for score in scores[tail].tolist()]  # few rows, and one logarithm
        return np.asarray(result, np.float64)

    def score_of(self, surprise: float) -> float:
        """The lowest score of that `surprise`: the inverse of `surprise`."""
        beyond = (surprise - self.surprises[-1]) * math.log(10)
        if beyond > 0:
            excess = math.expm1(self.index * beyond) / self.index if self.index else beyond
            return self.scores[-1] + excess * self.scale
        return float(np.interp(surprise, self.surprises, self.scores))

    def surprise_point(self, score: float) -> float:
        """The same for one score, to the last digit and without numpy."""
        knots = self.scores
        place = bisect_right(knots, score)
        if place == 0:
            return 0.0
        low = knots[place - 1]
        if place == len(knots):
            excess = (score - low) / self.scale
            rise = math.log1p(self.index * excess) / self.index if self.index else excess
            return self.surprises[-1] + rise / math.log(10)
        below = self.surprises[place - 1]
        return (self.surprises[place] - below) / (knots[place] - low) * (score - low) + below  # as `np.interp` rounds

    def to_json(self) -> dict[str, Any]:
        """The curve as JSON-able values."""
        return {
            "scores": list(self.scores),
            "surprises": list(self.surprises),
            "index": self.index,
            "scale": self.scale,
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Curve:
        """The curve that `to_json` wrote."""
        scores, surprises = (tuple(map(float, value[name])) for name in ("scores", "surprises"))
        return cls(scores, surprises, float(value["index"]), float(value["scale"]), int(value["rows"]))


@dataclass(frozen=True, slots=True)
class Scale:
    """How an endpoint's raw scores become noise units: `(raw - center) / unit`, 0 below the center."""

    center: float = 0.0
    unit: float = 1.0

    @classmethod
    def fit(cls, raw: Floats, ceiling: float) -> Scale:
        """From held-out raw scores `(n,)` in time order, a tenth of which may be incidents.

        A unit is such that what is rarely reached scores the alarm level (of few rows, their robust deviation); but never so
        large that a raw score of `ceiling` would not raise an alarm.
        """
        center = float(np.median(raw))
        above = raw[raw > center] - center
        deviation = TO_SIGMA * float(np.median(above)) if len(above) else 0.0
        far = rarely_reached(raw - center)
        unit = (deviation if far is None else far / ALARM) or float(np.std(raw)) or 1.0
        unit = max(unit, _SAME * float(np.ptp(raw)))
        if ceiling > center:
            unit = min(unit, (ceiling - center) / (_CLEAR * ALARM))
        return cls(center, unit)

    def units(self, raw: Floats) -> Floats:
        """Noise units `(n,)` of raw scores `(n,)`."""
        return np.maximum((raw - self.center) / self.unit, 0.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """For each endpoint with enough held-out rows how its raw scores become noise units, and how surprising a score is.

    What was measured on all rows together stands for the others.
    """

    everywhere: Curve
    endpoints: Mapping[str, Curve]
    scale: Scale
    scales: Mapping[str, Scale]

    @classmethod
    def fit(
        cls,
        found: Mapping[str, tuple[Floats, Floats | None]],
        pooled: bool = False,
        in_noise_units: bool = True,
        ceiling: float = math.inf,
    ) -> Calibration:
        """From the raw scores `(n,)` of held-out normal rows and the noise units of lost rows, by endpoint.

        `pooled`: one calibration of all rows for every endpoint, for raw scores that count an endpoint's own deviations
        already. Raises `DataError` when there is no row.
        """
        own = {name for name, (raw, _) in found.items() if len(raw) >= ENOUGH_ROWS and not pooled}
        scale, scales = Scale(), {}
        if not in_noise_units:
            together = np.concatenate([np.empty(0), *(raw for raw, _ in found.values())])
            scale = Scale.fit(together, ceiling) if len(together) else scale
            scales = {name: Scale.fit(found[name][0], ceiling) for name in sorted(own)}
        scores = {name: _larger(scales.get(name, scale).units(raw), lost) for name, (raw, lost) in found.items()}
        curve = Curve.fit(np.concatenate([np.empty(0), *scores.values()]))
        return cls(curve, {name: Curve.fit(scores[name]) for name in sorted(own)}, scale, scales)

    @property
    def pooled(self) -> bool:
        """Whether no endpoint has a calibration of its own."""
        return not self.endpoints

    def score(self, endpoint: str, raw: Floats, lost: Floats | None = None) -> Floats:
        """Noise units `(n,)` of the endpoint's raw scores `(n,)`, or of its lost rows where those say more."""
        return _larger(self.scales.get(endpoint, self.scale).units(raw), lost)

    def units_point(self, endpoint: str, raw: float) -> float:
        """The noise units of one raw score."""
        scale = self.scales.get(endpoint, self.scale)
        return max((raw - scale.center) / scale.unit, 0.0)

    def surprise(self, endpoint: str, scores: Floats) -> Floats:
        """-log10 of the share of held-out rows of the endpoint that reach each of `scores` `(n,)`, in noise units."""
        return self.endpoints.get(endpoint, self.everywhere).surprise(scores)

    def level(self, endpoint: str, share: float) -> float:
        """The score that a `share` of the endpoint's held-out rows reach."""
        return self.endpoints.get(endpoint, self.everywhere).score_of(-math.log10(share))

    def to_json(self) -> dict[str, Any]:
        """The calibration as JSON-able values."""
        return {
            "everywhere": self.everywhere.to_json(),
            "endpoints": {name: curve.to_json() for name, curve in self.endpoints.items()},
            "scale": asdict(self.scale),
            "scales": {name: asdict(scale) for name, scale in self.scales.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_json` wrote."""
        curves = {name: Curve.from_json(curve) for name, curve in value["endpoints"].items()}
        scales = {name: Scale(**scale) for name, scale in value["scales"].items()}
        return cls(Curve.from_json(value["everywhere"]), curves, Scale(**value["scale"]), scales)


def _larger(units: Floats, lost: Floats | None) -> Floats:
    return units if lost is None else np.maximum(units, lost)


def _tail(excesses: Floats) -> tuple[float, float]:
    """Tail index in [0, 0.9] and scale for `excesses` `(n,)` in rising order; a scale of 0 when there is no excess."""
    mean = float(excesses.mean())
    if mean <= 0:
        return 0.0, 0.0
    count = len(excesses)
    weighted = float((excesses * (count - 0.5 - np.arange(count)) / count).mean())
    index = 2 - mean / (mean - 2 * weighted) if mean > 2 * weighted else 0.0
    index = min(max(index, 0.0), _HEAVIEST)
    return index, mean * (1 - index)
