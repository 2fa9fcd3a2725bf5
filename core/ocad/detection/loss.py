"""Lost rows, and metrics that are themselves a share of lost messages: evidence of its own, the same for every detector.

A lost row is a value that is missing. How many are usual is fitted for each endpoint and metric; what counts is the
likelihood of more against the usual share: in a window of rows (Page 1954, window-limited), and of a run of lost rows,
which grows for as long as the link is dead. No scale of another metric's noise ever stands beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.sums import loss_sum, window_sums
from ocad.detection.units import of_nats, of_nats_point

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOW, SHARE_WINDOW = 30, 5
"""Rows that evidence is summed up over: of lost rows, and of shares, each of which counts many messages."""
OVER = 3
"""Answered rows in a row after which what was lost before counts no more; of shares, the first row of none is enough."""
_SOUGHT = 0.2
"""The least share of lost rows that is sought."""
_DEAD = 0.95
"""The share of lost rows of a link that is dead, and with `_PRIOR` what is taken off for looking for it in each row."""
_PRIOR = 2.5
_LEAST, _MOST = 0.001, _DEAD
"""Between these the usual share of lost rows is taken to be; a metric that an endpoint does not have can lose nothing."""
_SPARSE = 0.5
"""The usual share of missing rows above which they were not sent rather than lost: measured more rarely, or by others."""
_BLOCKS, _KEPT = 20, 15
"""The fitted rows are cut in so many blocks, and the best of them say what is usual: an outage in training is not."""
_UNKNOWN_TRIALS = 20
"""Messages behind one share where the shares seen do not tell."""
_MOST_TRIALS = 1000
_ESTIMATED = 1.0
"""Nats that a row's own share gains on average by being estimated from the row, twice over."""
_GRAIN = 2.0**-24
"""Nats are multiples of it, so that sums of them are exact in whatever order they are taken."""
_ALL_BITS, _NEWEST_BITS = (1 << WINDOW) - 1, (1 << OVER) - 1
_CHUNK = 4096
"""Rows that are summed up at once: few enough that running sums lose no digit."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for one metric of one endpoint."""

    lost: float
    """The share of lost rows."""
    share: float = 0.0
    """Of a metric that is a share of lost messages: the share of messages lost."""
    trials: float = 0.0
    """The messages that one such share counts, less where its losses come in bursts; 0 for any other metric."""

    @classmethod
    def fit(cls, values: Floats, is_share: bool) -> Self:
        """From the fitted rows `(n,)` of one metric in time order, a tenth of which may be incidents."""
        lost = _usual_share(np.isnan(values), len(values))
        if not is_share:
            return cls(lost)
        seen = np.clip(values[np.isfinite(values)], 0.0, 1.0)
        trials = _trials(seen)
        share = _usual_share(seen, trials * len(seen))
        unlikely = trials * _divergence(seen, share)
        typical = _best_blocks(unlikely)
        return cls(lost, share, trials / max(1.0, 2 * typical))

    @classmethod
    def median(cls, several: Sequence[Usual]) -> Self:
        """What is usual on an endpoint that was never seen: the median of each number."""
        names = ("lost", "share", "trials")
        return cls(*(float(np.median([getattr(one, name) for one in several])) for name in names))

    @property
    def sparse(self) -> bool:
        """Whether a row without a value is the rule on this endpoint."""
        return self.lost > _SPARSE

    @property
    def gains(self) -> tuple[float, float]:
        """What a lost and an answered row add: the log likelihood of the sought share over that of the usual one."""
        sought = min(_DEAD, max(_SOUGHT, 4 * self.lost))
        return _grained(math.log(sought / self.lost)), _grained(math.log((1 - sought) / (1 - self.lost)))

    @property
    def run_gain(self) -> float:
        """What each lost row of a run adds."""
        return _grained(math.log(_DEAD / self.lost))

    def nats(self, shares: Floats) -> Floats:
        """What the rows `shares` `(n,)` of messages lost add; a missing one adds nothing."""
        found = np.where(np.isnan(shares), 0.0, -_ESTIMATED)
        more = shares > self.share  # few rows
        found[more] = [self.nats_point(share) for share in shares[more].tolist()]
        return found

    def nats_point(self, share: float) -> float:
        """The same for one row."""
        share = min(max(share, 0.0), 1.0)
        if not share > self.share:
            return -_ESTIMATED
        rest = (1 - share) * math.log((1 - share) / (1 - self.share)) if share < 1 else 0.0
        return _grained(self.trials * (share * math.log(share / self.share) + rest) - _ESTIMATED)


class Loss:
    """The evidence of one endpoint's lost rows; what it remembers stands in a state made by `fresh`."""

    def __init__(self, usual: Sequence[Usual]) -> None:
        self.usual = tuple(usual)
        self._gains = [(*one.gains, one.run_gain) for one in usual]
        self._shares = [index for index, one in enumerate(usual) if one.trials]

    @classmethod
    def fit(cls, values: Floats, shares: Sequence[bool]) -> Self:
        """From fitted rows `(n, m)`; `shares` says which of the metrics are a share of lost messages."""
        return cls([Usual.fit(column, share) for column, share in zip(values.T, shares, strict=True)])

    def fresh(self) -> dict[str, Any]:
        """`lost` rows as bits, the newest the lowest, and the `run` of them, by metric; `nats` of shares, the newest last."""
        count = len(self.usual)
        return {"lost": [0] * count, "run": [0] * count, "nats": [[] for _ in self._shares]}

    def rows(self, state: dict[str, Any], values: Floats, broken: Flags) -> Floats | None:
        """Noise units `(n,)` of one endpoint's rows `(n, m)`, None where there is none; `broken` rows begin anew."""
        lost = np.isnan(values)
        nats = np.zeros(len(values))
        if lost.any() or any(state["lost"]) or any(state["run"]):
            for index in range(values.shape[1]):
                np.maximum(nats, self._lost_rows(state, index, lost[:, index], broken), out=nats)
        for place, index in enumerate(self._shares):
            np.maximum(nats, self._share_rows(state, place, values[:, index], broken), out=nats)
        return of_nats(nats) if nats.any() else None

    def row(self, state: dict[str, Any], values: Sequence[float], is_break: bool) -> float:
        """The same for one row."""
        if is_break:
            state |= self.fresh()
        worst, lost, runs = 0.0, state["lost"], state["run"]
        for index, value in enumerate(values):
            if value != value:  # noqa: PLR0124 - the fastest test for NaN
                hit, miss, run_gain = self._gains[index]
                lost[index] = (lost[index] << 1 | 1) & _ALL_BITS
                runs[index] += 1
                worst = max(worst, loss_sum(lost[index], hit, miss), runs[index] * run_gain - _PRIOR)
            elif lost[index]:
                hit, miss, _ = self._gains[index]
                lost[index] = bits = lost[index] << 1 & _ALL_BITS
                runs[index] = 0
                if bits & _NEWEST_BITS:
                    worst = max(worst, loss_sum(bits, hit, miss))
        for place, index in enumerate(self._shares):
            recent = state["nats"][place]
            recent.append(self.usual[index].nats_point(values[index]) if values[index] == values[index] else 0.0)
            del recent[:-SHARE_WINDOW]
            if recent[-1] > 0:
                worst = max(worst, _largest(recent))
        return of_nats_point(worst)

    def to_json(self) -> list[dict[str, float]]:
        """As JSON-able values."""
        return [asdict(one) for one in self.usual]

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, float]]) -> Self:
        """What `to_json` wrote."""
        return cls([Usual(**{name: float(number) for name, number in one.items()}) for one in value])

    def _lost_rows(self, state: dict[str, Any], index: int, lost: Flags, broken: Flags) -> Floats:
        """Nats `(n,)` of one metric's lost rows."""
        hit, miss, run_gain = self._gains[index]
        earlier = [(state["lost"][index] >> (WINDOW - 1 - place)) & 1 for place in range(WINDOW)]
        before = np.array([hit if bit else miss for bit in earlier])
        sums = _windowed(before, np.where(lost, hit, miss), broken)
        sums[np.convolve([*earlier, *lost], np.ones(OVER))[WINDOW : WINDOW + len(lost)] < 0.5] = 0.0
        rows = np.arange(len(lost))
        run = rows - np.maximum.accumulate(np.where(~lost, rows, np.where(broken, rows - 1, -1)))
        run[~np.logical_or.accumulate(~lost | broken)] += state["run"][index]
        newest = int(np.flatnonzero(broken)[-1]) if broken.any() else 0
        tail = lost[max(newest, len(lost) - WINDOW) :]
        bits = int("".join(map(str, [*([] if broken.any() else earlier), *tail.astype(int).tolist()])) or "0", 2)
        state["lost"][index], state["run"][index] = bits & _ALL_BITS, int(run[-1]) if len(run) else 0
        return np.maximum(sums, np.where(lost, run * run_gain - _PRIOR, 0.0))

    def _share_rows(self, state: dict[str, Any], place: int, shares: Floats, broken: Flags) -> Floats:
        """Nats `(n,)` of one metric that is a share of lost messages."""
        usual = self.usual[self._shares[place]]
        nats = usual.nats(shares)
        recent = state["nats"][place]
        before = np.zeros(SHARE_WINDOW)
        before[SHARE_WINDOW - len(recent) :] = recent
        newest = int(np.flatnonzero(broken)[-1]) if broken.any() else 0
        kept = [] if broken.any() else recent
        state["nats"][place] = [*kept, *nats[newest:].tolist()[-SHARE_WINDOW:]][-SHARE_WINDOW:]
        return np.where(nats > 0, _windowed(before, nats, broken), 0.0)


def _windowed(before: Floats, nats: Floats, broken: Flags) -> Floats:
    """The largest sum `(n,)` over the last rows, as many as `before` has, at least 0; none reaches over a `broken` row."""
    window, starts = len(before), [0, *np.flatnonzero(broken).tolist(), len(nats)]
    found = np.zeros(len(nats))
    for number, (first, last) in enumerate(itertools.pairwise(starts)):
        earlier = before if number == 0 else np.zeros(window)
        for begin in range(first, last, _CHUNK):
            part = nats[begin : min(begin + _CHUNK, last)]
            laid = np.concatenate([earlier, part])
            found[begin : begin + len(part)] = window_sums(laid[:, None], window)[:, 0]
            earlier = laid[-window:]
    return np.maximum(found, 0.0)


def _largest(recent: Sequence[float]) -> float:
    """The largest sum of the newest of `recent`, at least 0."""
    best = total = 0.0
    for nats in reversed(recent):
        total += nats
        best = max(best, total)
    return best


def _grained(nats: float) -> float:
    return round(nats / _GRAIN) * _GRAIN


def _usual_share(values: NDArray[Any], trials: float) -> float:
    """The usual mean of `values` `(n,)`, of one in `trials` at least; within the bounds of a usual share."""
    return float(np.clip((_best_blocks(values) * trials + 1) / (trials + 2), _LEAST, _MOST))


def _best_blocks(values: NDArray[Any]) -> float:
    """The mean of the blocks with the lowest means: of three quarters of the rows."""
    blocks = [float(block.mean()) for block in np.array_split(values, _BLOCKS) if len(block)]
    return float(np.mean(sorted(blocks)[: max(1, len(blocks) * _KEPT // _BLOCKS)])) if blocks else 0.0


def _trials(shares: Floats) -> float:
    """How many messages one of `shares` `(n,)` counts: by the smallest share that is not 0."""
    some = shares[shares > 1 / _MOST_TRIALS]
    return float(round(1 / some.min())) if len(some) else _UNKNOWN_TRIALS


def _divergence(shares: Floats, usual: float) -> Floats:
    """The Kullback-Leibler divergence `(n,)` of `shares` from `usual`, 0 up to it: nats that one message tells."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = shares * np.log(shares / usual)
        misses = (1 - shares) * np.log((1 - shares) / (1 - usual))
    return np.where(shares > usual, np.nan_to_num(hits) + np.nan_to_num(misses, neginf=0.0), 0.0)
