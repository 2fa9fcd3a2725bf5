"""Numbers on a common scale: fitted batch by batch on training rows, applied in float64, written as float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ocad.errors import DataError

Transform = Literal["standard", "log", "quantile", "none"]
KNOTS = 101
SAMPLE_ROWS = 100_000
"""Quantiles come from at most about this many training rows, chosen by the hash of their position."""
UNIFORM_DEVIATION = 1 / math.sqrt(12)


@dataclass(frozen=True)
class Scaler:
    """(f(x) - mean) / scale, where f is the identity, the signed logarithm, or the distribution function."""

    transform: Transform
    mean: float = 0.0
    scale: float = 1.0
    knots: tuple[float, ...] = ()
    """`quantile`: increasing values and, in `levels`, the share of training values below each."""
    levels: tuple[float, ...] = ()

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """`values` scaled; NaN becomes 0, which is the training mean (`none`: the mean itself)."""
        wide = self._curve(values.astype(np.float64))
        scaled = wide if self.transform == "none" else (wide - self.mean) / self.scale
        scaled[np.isnan(wide)] = self.mean if self.transform == "none" else 0.0
        return scaled.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        about = {"transform": self.transform, "mean": self.mean, "scale": self.scale}
        return {**about, "knots": list(self.knots), "levels": list(self.levels)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scaler:
        """The scaler that `to_json` wrote."""
        return cls(**{**value, "knots": tuple(value["knots"]), "levels": tuple(value["levels"])})

    def _curve(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.transform == "log":
            return np.sign(values) * np.log1p(np.abs(values))
        if self.transform == "quantile":
            return np.asarray(np.interp(values, self.knots, self.levels))
        return values


class ScalerFit:
    """Moments (Chan et al. 1979, merged batch by batch) or quantiles of one column's training values."""

    def __init__(self, transform: Transform) -> None:
        self.transform: Transform = transform
        self.count = 0
        self.missing = 0
        self._mean = 0.0
        self._squares = 0.0
        self._sample = np.zeros((2, 0))
        self._positions = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Takes in a batch; NaN counts as missing."""
        absent = np.isnan(values)
        self.missing += int(absent.sum())
        present = values[~absent].astype(np.float64)
        if self.transform == "quantile":
            self._sample_from(present)
        if self.transform == "log":
            present = Scaler("log")._curve(present)
        if not len(present):
            return
        mean, squares = float(present.mean()), float(np.square(present - present.mean()).sum())
        total, difference = self.count + len(present), mean - self._mean
        self._squares += squares + difference**2 * self.count * len(present) / total
        self._mean += difference * len(present) / total
        self.count = total

    def result(self, name: str) -> Scaler:
        """The fitted scaler; raises `DataError` when every value was missing."""
        if not self.count:
            raise DataError(f"column `{name}` has no value in the training rows", "leave it out")
        if self.transform == "quantile":
            return self._quantiles()
        deviation = math.sqrt(self._squares / self.count)
        return Scaler(self.transform, self._mean, deviation if deviation > 1e-12 * abs(self._mean) else 1.0)

    def _sample_from(self, present: NDArray[np.float64]) -> None:
        """Keeps the values whose position has the lowest hash: the same ones however the rows are batched."""
        priority = mix(np.arange(self._positions, self._positions + len(present), dtype=np.uint64))
        self._positions += len(present)
        sample = np.concatenate([self._sample, [priority.astype(np.float64), present]], axis=1)
        if sample.shape[1] > SAMPLE_ROWS:
            sample = sample[:, np.argsort(sample[0], kind="stable")[:SAMPLE_ROWS]]
        self._sample = sample

    def _quantiles(self) -> Scaler:
        levels = np.linspace(0, 1, KNOTS)
        knots = np.quantile(self._sample[1], levels)
        distinct, start = np.unique(knots, return_inverse=True)
        mean_levels = np.bincount(start, weights=levels) / np.bincount(start)
        return Scaler("quantile", 0.5, UNIFORM_DEVIATION, tuple(distinct.tolist()), tuple(mean_levels.tolist()))


def mix(numbers: NDArray[np.uint64], seed: int = 0) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood 2014) of each number under a seed: uniform 64 bits that depend on nothing else."""
    return _splitmix(numbers ^ _splitmix(np.asarray([seed % (1 << 64)], np.uint64)))


def _splitmix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        state = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
