"""The level and the deviation that are normal now: medians over the last blocks of rows, vectorised and row by row.

Each block's median is a vote. A level that stays for half of the remembered votes becomes the normal one; an incident
that is shorter moves nothing. What the hour of the day explains is taken off first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ocad.detection.config import LevelSettings
from ocad.detection.season import Season
from ocad.detection.units import TO_SIGMA

Floats = NDArray[np.float64]

_TRIMMED = 0.9
"""Share of the deviations, the smallest, whose mean stands for the deviation where more than half of the rows are equal."""
_LEAST = 0.01
"""The deviation of a metric that never varied, as a share of its level."""


@dataclass(frozen=True, slots=True)
class Normal:
    """What was fitted for an endpoint, `(m,)` each: level (None where unknown), deviation, rhythm of the day (or None)."""

    level: Sequence[float | None]
    sigma: Sequence[float]
    season: Sequence[Season | None]

    def where(self, known: Sequence[bool], other: Normal) -> Normal:
        """This one for the metrics that are `known` `(m,)`, `other` for the rest."""
        if all(known):
            return self
        chosen = [self if enough else other for enough in known]
        places = range(len(chosen))
        return Normal(
            [chosen[place].level[place] for place in places],
            [chosen[place].sigma[place] for place in places],
            [chosen[place].season[place] for place in places],
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        season = [one.to_json() if one else None for one in self.season]
        return {"level": list(self.level), "sigma": list(self.sigma), "season": season}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normal:
        """What `to_json` wrote."""
        season = [Season.from_json(one) if one else None for one in value["season"]]
        return cls(value["level"], value["sigma"], season)


class MovingLevel:
    """The level of one endpoint; what it remembers stands in the endpoint's track under the names of `fresh`.

    An endpoint that was never seen has no level until its first block is full, and its deviation becomes its own.
    """

    def __init__(self, normal: Normal, settings: LevelSettings) -> None:
        self._normal, self._settings = normal, settings
        self._least = [
            sigma if level is not None else 0.0 for level, sigma in zip(normal.level, normal.sigma, strict=True)
        ]
        """The least deviation by metric: the fitted one, so that a quiet hour makes nothing suspicious."""

    def fresh(self) -> dict[str, Any]:
        """`votes` and `spreads` by metric, the `level` and `sigma` they come to, and the rows of the `block` so far."""
        normal, trust = self._normal, self._settings.trust
        return {
            "votes": [[] if level is None else [level] * trust for level in normal.level],
            "spreads": [[sigma] * trust for sigma in normal.sigma],
            "level": list(normal.level),
            "sigma": [
                self._sigma(index, level, sigma)
                for index, (level, sigma) in enumerate(zip(normal.level, normal.sigma, strict=True))
            ],
            "block": [[] for _ in normal.level],
        }

    def advance(self, track: dict[str, Any], values: Sequence[float]) -> None:
        """Takes in one row."""
        if not self._settings.memory:
            return
        block = track["block"]
        for column, value in zip(block, values, strict=True):
            column.append(value if value == value else None)  # noqa: PLR0124 - the fastest test for NaN
        if len(block[0]) == self._settings.block:
            for index, column in enumerate(block):
                self._vote(track, index, column)
                block[index] = []

    def move(self, track: dict[str, Any], values: Floats, broken: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Level and deviation `(n, m)` that each of the rows `values` `(n, m)` meets; NaN where unknown. Takes in all rows."""
        level = np.array([track["level"]], np.float64)
        sigma = np.array([track["sigma"]], np.float64)
        if not self._settings.memory:
            return np.broadcast_to(level, values.shape), np.broadcast_to(sigma, values.shape)
        block, kept = self._settings.block, 0 if broken[0] else len(track["block"][0])
        rows = np.concatenate([np.array(track["block"], np.float64).T[:kept], values])
        number = np.arange(len(rows))
        begins = np.concatenate([np.zeros(kept, dtype=bool), broken])
        place = number - np.maximum.accumulate(np.where(begins, number, 0))
        ends = np.flatnonzero(place % block == block - 1)
        blocks = rows[ends[:, None] - np.arange(block - 1, -1, -1)]
        medians = column_medians(blocks)
        spreads = TO_SIGMA * column_medians(np.abs(blocks - medians[:, None, :]))
        steps = [self._step(track, index, medians[:, index], spreads[:, index]) for index in range(values.shape[1])]
        level = np.concatenate([level, np.stack([step[0] for step in steps], axis=1)])
        sigma = np.concatenate([sigma, np.stack([step[1] for step in steps], axis=1)])
        rest = rows[len(rows) - (int(place[-1]) + 1) % block :]
        track["block"] = [[None if np.isnan(value) else value for value in column] for column in rest.T.tolist()]
        met = np.searchsorted(ends - kept, np.arange(len(values)))
        return level[met], sigma[met]

    def _step(self, track: dict[str, Any], index: int, medians: Floats, spreads: Floats) -> tuple[Floats, Floats]:
        """Level and deviation of one metric after each of its votes `(b,)`."""
        memory = self._settings.memory
        level, sigma = track["level"][index], track["sigma"][index]
        voting = np.flatnonzero(np.isfinite(medians))
        levels = moving_medians(track["votes"][index], medians[voting], memory)
        widths = moving_medians(track["spreads"][index], spreads[voting], memory)
        widths = np.maximum(np.maximum(self._least[index], self._settings.floor * np.abs(levels)), widths)
        widths = np.where(widths > 0, widths, self._normal.sigma[index])
        remember(track["votes"][index], medians[voting].tolist(), memory)
        remember(track["spreads"][index], spreads[voting].tolist(), memory)
        if len(voting):
            track["level"][index], track["sigma"][index] = float(levels[-1]), float(widths[-1])
        counted = np.searchsorted(voting, np.arange(len(medians)), side="right")
        before = np.nan if level is None else level
        return np.concatenate([[before], levels])[counted], np.concatenate([[sigma], widths])[counted]

    def _vote(self, track: dict[str, Any], index: int, column: Sequence[float | None]) -> None:
        present = [value for value in column if value is not None]
        if not present:
            return
        median = median_of(present)
        spread = TO_SIGMA * median_of([abs(value - median) for value in present])
        remember(track["votes"][index], [median], self._settings.memory)
        remember(track["spreads"][index], [spread], self._settings.memory)
        level = track["level"][index] = median_of(track["votes"][index])
        track["sigma"][index] = self._sigma(index, level, median_of(track["spreads"][index]))

    def _sigma(self, index: int, level: float | None, spread: float) -> float:
        """The deviation now."""
        found = max(self._least[index], self._settings.floor * abs(level or 0.0), spread)
        return found if found > 0 else self._normal.sigma[index]


def fit_normal(times: NDArray[np.int64], values: Floats, broken: NDArray[np.bool_], settings: LevelSettings) -> Normal:
    """The normal of one endpoint from its fitted rows: `times` `(n,)` in µs, `values` `(n, m)`, a tenth of them incidents.

    The level is that at the end of the rows, the deviation that of all rows from the level that moved along.
    """
    season = [Season.fit(times, column) if settings.season else None for column in values.T]
    rest = values - season_of(season, times, values)
    beginning = column_medians(rest[None, : settings.block * settings.memory or None])[0]
    beginning = np.where(np.isnan(beginning), column_medians(rest[None])[0], beginning)
    start = [None if np.isnan(level) else float(level) for level in beginning]
    moving = MovingLevel(Normal(start, [0.0] * len(start), season), settings)
    track = moving.fresh()
    level, _ = moving.move(track, rest, broken)
    sigma = [robust_sigma(column, usual) for column, usual in zip((rest - level).T, beginning.tolist(), strict=True)]
    return Normal(track["level"], sigma, season)


def season_of(season: Sequence[Season | None], times: NDArray[np.int64], values: Floats) -> Floats:
    """What the hour of the day explains of `values` `(n, m)`."""
    found = np.zeros(values.shape)
    for column, one in enumerate(season):
        if one is not None:
            found[:, column] = one.at(times)
    return found


def robust_sigma(residuals: Floats, level: float) -> float:
    """The robust deviation of `residuals` `(n,)` around 0 of a metric around `level`, above 0; NaN left out.

    Where more than half of the rows are equal: the mean of the smaller deviations, the smallest step between values, and
    of a metric that never varied a hundredth of its level.
    """
    known = np.sort(np.abs(residuals[np.isfinite(residuals)]))
    if len(known) == 0:
        return 1.0
    sigma = TO_SIGMA * median_of(known.tolist())
    if not sigma > 0:
        sigma = float(known[: max(1, round(_TRIMMED * len(known)))].mean())
    if not sigma > 0:
        sigma = float(known[known > 0].min(initial=np.inf))
    return sigma if 0 < sigma < np.inf else _LEAST * abs(np.nan_to_num(level)) or 1.0


def column_medians(blocks: Floats) -> Floats:
    """The medians `(b, m)` of `blocks` `(b, rows, m)` along the rows, NaN left out; NaN where there is nothing else."""
    ordered = np.sort(blocks, axis=1)
    count = np.isfinite(ordered).sum(axis=1)[:, None, :]
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[1] - 1), axis=1)
    return np.asarray(((low + high) / 2)[:, 0, :])


def median_of(values: Sequence[float]) -> float:
    """The median of a few numbers."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def moving_medians(remembered: Sequence[float], votes: Floats, memory: int) -> Floats:
    """The median of the last `memory` votes after each of `votes` `(b,)`, `remembered` being those before them."""
    if len(votes) == 0:
        return np.empty(0)
    earlier = np.full(memory - 1, np.nan)
    known = list(remembered)[max(0, len(remembered) - memory + 1) :]
    earlier[memory - 1 - len(known) :] = known
    return column_medians(sliding_window_view(np.concatenate([earlier, votes]), memory)[:, :, None])[:, 0]


def remember(votes: list[float], new: Sequence[float], memory: int) -> None:
    """Adds `new` votes and forgets the oldest."""
    votes.extend(new)
    del votes[: max(0, len(votes) - memory)]
