"""From raw scores to surprise: -log10 of the share of normal rows that would score at least as high.

A surprise of 3 is one false alarm in 1,000 normal rows. It is measured on held-out normal rows, per endpoint, with the
rows of all endpoints for those that have too few; above the 98 % quantile a generalised Pareto tail goes on without bound
(Pickands 1975), fitted by probability-weighted moments (Hosking and Wallis 1987).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.errors import DataError

Floats = NDArray[np.float64]

ENOUGH_ROWS = 200
"""Held-out rows from which an endpoint has its own calibration."""
KNOTS = 128
"""The most knots of a curve: so few that a difference in the last digits of a score is not magnified."""
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
        tail = np.flatnonzero(scores > self.scores[-1])
        if len(tail):
            excess = (scores[tail] - self.scores[-1]) / self.scale
            rise = np.log1p(self.index * excess) / self.index if self.index else excess
            result[tail] = self.surprises[-1] + rise / math.log(10)
        return np.asarray(result, np.float64)

    def surprise_point(self, score: float) -> float:
        """The same for one score, without numpy."""
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
        return below + (self.surprises[place] - below) * (score - low) / (knots[place] - low)

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
class Calibration:
    """A curve for each endpoint with enough held-out rows, and one of all rows for the others."""

    everywhere: Curve
    endpoints: Mapping[str, Curve]

    @classmethod
    def fit(cls, scores_by_endpoint: Mapping[str, Floats], pooled: bool = False) -> Calibration:
        """From the raw scores `(n,)` of held-out normal rows; raises `DataError` when there is none.

        `pooled`: one curve of all rows for every endpoint, for raw scores that count an endpoint's own deviations already:
        the tail of all endpoints together is known far better than that of each.
        """
        together = np.concatenate([np.empty(0), *scores_by_endpoint.values()])
        enough = len(together) + 1 if pooled else ENOUGH_ROWS
        own = {name: scores for name, scores in scores_by_endpoint.items() if len(scores) >= enough}
        return cls(Curve.fit(together), {name: Curve.fit(scores) for name, scores in own.items()})

    @property
    def pooled(self) -> bool:
        """Whether no endpoint has a curve of its own."""
        return not self.endpoints

    def curve(self, endpoint: str) -> Curve:
        """The endpoint's own curve, else the one of all rows."""
        return self.endpoints.get(endpoint, self.everywhere)

    def surprise(self, endpoint: str, raw: Floats) -> Floats:
        """-log10 of the false-alarm probability of the endpoint's raw scores `(n,)`."""
        return self.curve(endpoint).surprise(raw)

    def surprise_point(self, endpoint: str, raw: float) -> float:
        """The same for one raw score."""
        return self.curve(endpoint).surprise_point(raw)

    def to_json(self) -> dict[str, Any]:
        """The calibration as JSON-able values."""
        curves = {name: curve.to_json() for name, curve in self.endpoints.items()}
        return {"everywhere": self.everywhere.to_json(), "endpoints": curves}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_json` wrote."""
        curves = {name: Curve.from_json(curve) for name, curve in value["endpoints"].items()}
        return cls(Curve.from_json(value["everywhere"]), curves)


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
