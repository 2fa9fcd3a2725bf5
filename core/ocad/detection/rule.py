"""The alarm rule: how the scores of several detectors become one, and when that is an alarm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.hold import REST, Hold, default_hold
from ocad.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """Weights in the order of the members, and the hold-down of the weighted mean of their scores, in noise units.

    What every member says, that a link is dead, is therefore never outweighed. Raises `UsageError` for values out of range.
    """

    weights: tuple[float, ...]
    on: float
    instant: float
    k: int
    n: int
    off: float
    m: int
    rest: int = REST
    """Quiet rows until another alarm is another incident."""

    def __post_init__(self) -> None:
        if not self.weights:
            raise UsageError("an alarm rule needs a weight for each member", "give all of them")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise UsageError(f"the weights add up to {sum(self.weights):g}", "give weights from 0 that add up to 1")
        self.hold()

    @classmethod
    def plain(cls, weights: tuple[float, ...] = (1.0,)) -> Self:
        """The default hold-down; the rule of a single detector."""
        hold = default_hold()
        return cls(weights, hold.on, hold.instant, hold.k, hold.n, hold.off, hold.m)

    def at(
        self, level: float | None = None, of_rows: tuple[int, int] | None = None, instant: float | None = None
    ) -> Self:
        """The rule with another alarm `level`, `k` of `n` rows that must reach it, or level that alone is enough.

        A lower level, fewer rows or a lower instant level never lose an incident. What is not given stays in proportion.
        """
        changed = self
        if level is not None:
            factor = level / self.on
            changed = dataclasses.replace(self, on=level, instant=self.instant * factor, off=self.off * factor)
        if of_rows is not None:
            changed = dataclasses.replace(changed, k=of_rows[0], n=of_rows[1])
            if instant is None and changed.k > 1 and changed.instant == changed.on:
                instant = math.inf
        return dataclasses.replace(changed, instant=max(instant, changed.on)) if instant is not None else changed

    def hold(self) -> Hold:
        """A fresh hold-down."""
        return Hold(self.on, self.instant, self.k, self.n, self.off, self.m)

    def combine(self, scores: Floats) -> Floats:
        """The weighted mean `(n,)` of `scores` `(n, k)`; rises with each of them."""
        total = self.weights[0] * scores[:, 0]
        for column in range(1, len(self.weights)):
            total = total + self.weights[column] * scores[:, column]
        return np.asarray(total)

    def combine_point(self, scores: Sequence[float]) -> float:
        """`combine` for one row."""
        weights = self.weights
        total = weights[0] * scores[0]
        for index in range(1, len(weights)):
            total += weights[index] * scores[index]
        return total

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON-able values; an instant level that no row reaches is null."""
        return {**asdict(self), "instant": self.instant if math.isfinite(self.instant) else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The rule that `to_json` wrote."""
        levels = {name: float(value[name]) for name in ("on", "off")}
        instant = math.inf if value["instant"] is None else float(value["instant"])
        counts = {name: int(value[name]) for name in ("k", "n", "m", "rest")}
        return cls(weights=tuple(map(float, value["weights"])), instant=instant, **levels, **counts)  # type: ignore[arg-type]
