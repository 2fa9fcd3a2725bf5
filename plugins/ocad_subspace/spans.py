"""How long something lasts: log φ averaged over several spans of rows, each in noise units of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from ocad.detection.calibration import Scale
from ocad.detection.units import ALARM, TO_SIGMA

Floats = NDArray[np.float64]

_AT_MOST = 2.0
"""An average says at most so many times what the next shorter one says, so that it ends with what it tells of."""
_CLEAR, _LEAST = 1.05, 1e-3


def weights_of(spans: Sequence[int]) -> Floats:
    """The weight of the newest row in the exponential average over each of `spans`."""
    return np.array([2 / (span + 1) for span in spans])


def smooth(rows: Floats, start: Floats, rest: float, broken: NDArray[np.bool_], weight: float) -> Floats:
    """Exponential averages `(n, m)` of `rows` from `start` `(m,)` on, from `rest` again where a row is `broken`."""
    if weight == 1.0:
        return rows
    result = np.empty_like(rows)
    bounds = [0, *np.flatnonzero(broken).tolist(), len(rows)]
    for first, last in pairwise(bounds):
        if first == last:
            continue
        before = np.full_like(start, rest) if broken[first] else start
        carried = (1 - weight) * before[None]
        result[first:last] = lfilter([weight], [1, weight - 1], rows[first:last], axis=0, zi=carried)[0]
    return result


@dataclass(frozen=True, slots=True)
class SpanUnits:
    """For each span how its average of log φ becomes noise units."""

    centers: Floats
    units: Floats

    @classmethod
    def fit(cls, averages: Floats, moved: Floats, ceiling: float) -> SpanUnits:
        """From held-out averages `(n, spans)` in time order, a tenth of which may be incidents.

        A unit is that of `Scale`, but at most the robust deviation. What is at `ceiling` for so long that the averages have
        `moved` `(spans,)` of the way must be an alarm, whatever the held-out rows say: all units shrink alike until it is.
        """
        scales = [Scale.fit(column, math.inf) for column in averages.T]
        centers = np.array([scale.center for scale in scales])
        deviations = TO_SIGMA * np.median(np.abs(averages - centers), axis=0)
        units = np.array([scale.unit for scale in scales])
        units = np.where(deviations > 0, np.minimum(units, deviations), units)
        found = cls(centers, units)
        reached = float(found.most((centers + moved * (ceiling - centers))[None])[0])
        return cls(centers, units * min(1.0, max(reached, _LEAST) / (_CLEAR * ALARM)))

    def most(self, averages: Floats) -> Floats:
        """Noise units `(n,)` of averages `(n, spans)`."""
        units = np.maximum((averages - self.centers) / self.units, 0.0).T
        for shorter, longer in pairwise(units):
            np.minimum(longer, _AT_MOST * shorter, out=longer)
        return np.asarray(units.max(axis=0))

    def most_point(self, averages: Sequence[float]) -> float:
        """The same for one row, without numpy's cost for each."""
        shorter = most = 0.0
        for place, (average, center, unit) in enumerate(zip(averages, self.centers, self.units, strict=True)):
            units = max((average - center) / unit, 0.0)
            shorter = min(units, _AT_MOST * shorter) if place else units
            most = max(most, shorter)
        return float(most)

    def to_json(self) -> dict[str, list[float]]:
        """As JSON-able values."""
        return {"centers": self.centers.tolist(), "units": self.units.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[float]]) -> SpanUnits:
        """What `to_json` wrote."""
        return cls(np.asarray(value["centers"], np.float64), np.asarray(value["units"], np.float64))
