"""The alarm rule of a composite: how the surprises of its members become one score, and when that is an alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.hold import Hold
from ocad.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """Weights, caps and thresholds in the order of the members, and the hold-down of the weighted sum.

    The sum is the mean of the members' surprises, each up to its cap, by their weights (which add up to 1). A row may begin
    an alarm only when at least `agreement` members reach their own threshold. Raises `UsageError` for values out of range.
    """

    weights: tuple[float, ...]
    caps: tuple[float, ...]
    thresholds: tuple[float, ...]
    """The surprise from which each member agrees."""
    agreement: int
    on: float
    instant: float
    k: int
    n: int
    off: float
    m: int
    rest: int = 0

    def __post_init__(self) -> None:
        size = len(self.weights)
        if not size or len(self.caps) != size or len(self.thresholds) != size:
            raise UsageError("an alarm rule needs a weight, a cap and a threshold for each member", "give all of them")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise UsageError(f"the weights add up to {sum(self.weights):g}", "give weights from 0 that add up to 1")
        if not 1 <= self.agreement <= size:
            raise UsageError(f"{self.agreement} of {size} members cannot agree", f"give 1 to {size}")
        self.hold()

    @classmethod
    def plain(cls) -> Self:
        """The rule for a single detector: one false alarm in 1,000 normal rows, three times within five rows."""
        return cls((1.0,), (100.0,), (3.0,), agreement=1, on=3.0, instant=6.0, k=3, n=5, off=2.0, m=5)

    def hold(self) -> Hold:
        """A fresh hold-down."""
        return Hold(self.on, self.instant, self.k, self.n, self.off, self.m, self.rest)

    def combine(self, surprises: Floats) -> Floats:
        """The weighted sum `(n,)` of `surprises` `(n, k)`; rises with each of them."""
        return np.asarray(np.minimum(surprises, self.caps) @ np.asarray(self.weights), np.float64)

    def gate(self, surprises: Floats, combined: Floats) -> Floats:
        """What the hold-down sees: the sum, kept just below `on` where too few members agree."""
        agreed = (surprises >= np.asarray(self.thresholds)).sum(axis=1) >= self.agreement
        return np.where(agreed, combined, np.minimum(combined, np.nextafter(self.on, -np.inf)))

    def combine_point(self, surprises: Sequence[float]) -> float:
        """`combine` for one row."""
        caps, weights = self.caps, self.weights
        return sum(weights[i] * min(surprise, caps[i]) for i, surprise in enumerate(surprises))

    def gate_point(self, surprises: Sequence[float], combined: float) -> float:
        """`gate` for one row."""
        if combined < self.on:
            return combined
        agreed = sum(surprise >= threshold for surprise, threshold in zip(surprises, self.thresholds, strict=True))
        return combined if agreed >= self.agreement else float(np.nextafter(self.on, -np.inf))

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The rule that `to_json` wrote."""
        lists = {name: tuple(map(float, value[name])) for name in ("weights", "caps", "thresholds")}
        counts = {name: int(value[name]) for name in ("agreement", "k", "n", "m")}
        counts["rest"] = int(value.get("rest", 0))
        levels = {name: float(value[name]) for name in ("on", "instant", "off")}
        return cls(**lists, **counts, **levels)  # type: ignore[arg-type]
