"""What a row's largest deviation says by itself, beside the trees: beyond the rows that they grew on all look alike to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.units import ALARM, spike_gain

Floats = NDArray[np.float64]


class Spikes:
    """Puts rows that are an alarm by the size of one metric above every score of the trees, the further out the higher.

    `gains` by endpoint, "" for others: what a deviation of each metric counts; see `spike_gain`. `down` `(m,)` says which
    metrics count below their level too. `highest` and `usual` are raw scores of the trees: what they say at most, and of
    a normal row.
    """

    def __init__(
        self, down: Sequence[bool], gains: Mapping[str, Sequence[float]], highest: float, usual: float
    ) -> None:
        self.down, self.gains = np.array(down), {name: np.array(row) for name, row in gains.items()}
        self.highest, self.usual = highest, usual
        self._per_unit = (highest - usual) / ALARM

    @classmethod
    def gain(cls, features: NDArray[np.floating], down: Sequence[bool], counts: Sequence[bool]) -> list[float]:
        """The gains of one endpoint's metrics from the features of its rows; 0 of a metric that does not count."""
        deviations = _deviations(features, np.array(down))
        return [spike_gain(column) if own else 0.0 for column, own in zip(deviations.T, counts, strict=True)]

    def above(self, endpoint: str, features: NDArray[np.floating], raw: Floats) -> Floats:
        """`raw` `(n,)` of the trees, or what the largest deviation in `features` `(n, k)` says where that is an alarm."""
        gains = self.gains.get(endpoint, self.gains[""])
        units = (_deviations(features, self.down) * gains).max(axis=1)
        far = self.highest + (units - ALARM) * self._per_unit
        return np.where(units >= ALARM, far, np.minimum(raw, self.highest))

    def to_json(self) -> dict[str, Any]:
        """What was fitted, as JSON-able values."""
        gains = {name: row.tolist() for name, row in self.gains.items()}
        return {"down": self.down.tolist(), "gains": gains, "highest": self.highest, "usual": self.usual}


def _deviations(features: NDArray[np.floating], down: NDArray[np.bool_]) -> Floats:
    """How far `(n, m)` each metric is from its usual level of late, in its endpoint's noise."""
    count = len(down)
    level, deviation = (features[:, first : 2 * count : 2].astype(np.float64) for first in (0, 1))
    found = np.sinh(level) - np.sinh(level - deviation)
    return np.where(down, np.abs(found), found)
