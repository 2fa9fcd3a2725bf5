"""How many incidents can be found at all: a likelihood-ratio oracle that knows each incident's shape, length and size.

It is no detector: it is told what to look for, on a link whose noise it knows, and only not where. By the lemma of Neyman and
Pearson (1933) no test of the same rows does better at the same false-alarm rate, as far as the noise is independent
from row to row; its threshold is empirical and holds for dependent noise as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ocad.detection.events import Interval
from ocad.detection.inject import InjectedIncident
from ocad.errors import DataError

CLUSTER = 30
"""Rows within which exceedances of a threshold are one false alarm, as one alert is; an incident's length if that is more."""
_FREEDOMS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_LEAST_CLEAN = 200

Floats = NDArray[np.float64]


class LikelihoodRatio:
    """The oracle of one link, from `clean` `(n,)`: rows in which nothing happens, NaN where one was lost.

    The noise about the median is a Student t; of eight degrees of freedom the likeliest. Raises `DataError` for fewer than
    200 measured rows or a constant series.
    """

    def __init__(self, clean: Floats) -> None:
        self.clean = np.asarray(clean, np.float64)
        measured = self.clean[np.isfinite(self.clean)]
        self.level = float(np.median(measured)) if len(measured) else 0.0
        half = float(np.median(np.abs(measured - self.level))) if len(measured) else 0.0
        if len(measured) < _LEAST_CLEAN or (half or measured.std()) == 0:
            message = f"{len(measured)} clean rows do not tell a link's noise"
            raise DataError(message, f"give at least {_LEAST_CLEAN} that differ")
        likelihoods = []
        for freedom in _FREEDOMS:
            scale = half / stats.t.ppf(0.75, freedom) if half else float(measured.std())
            likelihoods.append((stats.t.logpdf(measured - self.level, freedom, scale=scale).sum(), freedom, scale))
        _, self.freedom, self.scale = max(likelihoods)

    def finds(self, values: Floats, incident: InjectedIncident, rate: float) -> bool:
        """Whether it would tell of `incident` in the link's `values` `(n,)` by the deadline of any alert.

        `rate` is the false alarms a row that its threshold allows on the clean rows.
        """
        length = incident.end - incident.start + 1
        size = next(iter(incident.sizes.values()), 0.0)
        deadline = Interval(incident.start, incident.end, incident.kind == "spike").deadline
        first = max(incident.start - length + 1, 0)
        told = self.evidence(values[first : deadline + 1], incident.kind, length, size)
        return bool(told[incident.start - first :].max() > self.threshold(incident.kind, length, size, rate))

    def threshold(self, kind: str, length: int, size: float, rate: float) -> float:
        """The least evidence that is exceeded at most `rate` times a clean row, exceedances close together counted once."""
        evidence, rows = self.evidence(self.clean, kind, length, size), max(CLUSTER, length)
        highest = np.sort(np.maximum.reduceat(evidence, np.arange(0, len(evidence), rows)))[::-1]
        return float(highest[min(int(rate * len(evidence)), len(highest) - 1)])

    def evidence(self, values: Floats, kind: str, length: int, size: float) -> Floats:
        """Log-likelihood ratio `(n,)` of an incident in the `length` rows that end with each row; rows before count nothing.

        For `loss` it is the number of lost rows; the values of lost rows tell nothing of the other kinds.
        """
        if kind == "loss":
            return _trailing([np.isnan(values).astype(np.float64)] * length)
        rest = np.asarray(values, np.float64) - self.level
        usual = self._log_density(rest)
        if kind == "drift":
            return _trailing([self._log_density(rest - size * (row + 1) / length) - usual for row in range(length)])
        gain = (self._jitter(rest, size) if kind == "jitter" else self._log_density(rest - size)) - usual
        return _trailing([gain] * length)

    def _jitter(self, rest: Floats, size: float) -> Floats:
        """Log density where the absolute value of a normal variable times `size` is added."""
        parts = [self._log_density(rest - size * abs(node)) for node in _NODES]
        weights = _WEIGHTS / _WEIGHTS.sum()
        return np.asarray(np.log(np.maximum(weights @ np.exp(parts), np.finfo(float).tiny)))

    def _log_density(self, rest: Floats) -> Floats:
        """Up to a constant; NaN for a lost row."""
        return -0.5 * (self.freedom + 1) * np.log1p((rest / self.scale) ** 2 / self.freedom)


def _trailing(gains: Sequence[Floats]) -> Floats:
    """For each row the sum of `gains` of a stretch ending there, the first for its first row; NaN counts 0."""
    length, rows = len(gains), len(gains[0])
    total = np.zeros(rows)
    for place, gain in enumerate(gains):
        back = length - 1 - place
        if back < rows:
            total[back:] += np.nan_to_num(gain, nan=0.0)[: rows - back]
    return total
