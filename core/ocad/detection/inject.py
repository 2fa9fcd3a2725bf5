"""Incidents put into real series, so that detection can be measured where nobody has labelled anything.

The manner is GutenTAG's (Wenig, Schmidl, Papenbrock: TimeEval, PVLDB 15(12), 2022): a real or made base series, typed
anomalies added at places drawn at random, and the truth written down. What differs is the unit of size: a magnitude
counts robust local noise, because a fixed number of microseconds is an outage on one link and nothing on the next.
Everything counts rows, not seconds; what happens naturally in the series stays, unlabelled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.detection.units import TO_SIGMA
from ocad.errors import DataError, UsageError, nearest

LENGTHS = {"spike": (1, 3), "shift": (10, 40), "drift": (20, 40), "jitter": (10, 40), "loss": (3, 12)}
"""Kind → least and most rows of an incident, both included."""
KINDS = tuple(LENGTHS)
GUARD = 66
"""Normal rows before and after every incident: an alert may start 33 rows after a short incident's first row and last
twice the incident's length, and still stays clear of the next one."""
MOST = 0.10
"""The largest prevalence: with more than a tenth of all rows anomalous, "normal" means nothing."""
NEIGHBOURHOOD = 100
TREND = 101


@dataclass(frozen=True, slots=True)
class Injection:
    """What to put in. Raises `UsageError` naming the first setting out of range."""

    magnitude: float = 6.0
    """Size in units of `local_noise`; loss has none."""
    prevalence: float = 0.05
    """At most this share of each endpoint's rows after its clean part is anomalous."""
    seed: int = 7
    kinds: tuple[str, ...] = KINDS
    correlated: bool = False
    """True: an incident hits all metrics of its endpoint at once; False: one of them, drawn at random."""
    clean: float = 0.0
    """The first share of each endpoint's rows that stays as it is, to fit and calibrate on."""
    direction: Literal["up", "both"] = "up"
    """`up`: values only grow, as delays do under load; `both`: the sign of each incident is drawn."""
    at_least_one: bool = False
    """Where an endpoint has no room for a guarded incident, one of the least length without guards, in a third of its rows."""

    def __post_init__(self) -> None:
        if not 0.0 < self.prevalence <= MOST:
            raise UsageError(f"prevalence `{self.prevalence:g}` is not in (0, {MOST:g}]", "give a share such as 0.05")
        if not 0.0 < self.magnitude < float("inf"):
            raise UsageError(f"magnitude `{self.magnitude:g}` is not above 0", "give noise units such as 6")
        if not 0.0 <= self.clean < 1.0:
            raise UsageError(f"clean share `{self.clean:g}` is not in [0, 1)", "give a share such as 0.6")
        if not self.kinds:
            raise UsageError("no kind of incident is asked for", nearest("", KINDS))
        for kind in self.kinds:
            if kind not in LENGTHS:
                raise UsageError(f"unknown kind `{kind}`", nearest(kind, KINDS))


@dataclass(frozen=True, slots=True)
class InjectedIncident:
    """One incident put in: the truth about rows `start` to `end` (both included) of its endpoint."""

    endpoint: str
    kind: str
    metrics: tuple[str, ...]
    start: int
    """Number of its first row among the endpoint's rows, from 0."""
    end: int
    start_time: str
    """ISO 8601, UTC."""
    end_time: str
    sizes: dict[str, float] = field(default_factory=dict)
    """Metric → `magnitude` in the metric's own unit, negative downwards; empty for loss."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as it stands in the list beside the data."""
        return {
            "endpoint": self.endpoint,
            "kind": self.kind,
            "metrics": list(self.metrics),
            "start": self.start_time,
            "end": self.end_time,
            "start_row": self.start,
            "end_row": self.end,
            "sizes": self.sizes,
        }


def local_noise(values: NDArray[np.float64], start: int, end: int) -> float:
    """The noise of `values` (n,) around rows `start` to `end`: 1.4826 · median |r - median(r)|.

    r are the rows from 100 before `start` to 100 after `end`, less their running median over 101 rows (centred), NaN left
    out: so neither a level nor a slow trend counts, and neighbouring spikes hardly do. Where that is zero (a series
    in coarse steps, at rest), the smallest step between two different values of the neighbourhood, then of the whole
    series; 0.0 when all values are equal.
    """
    left = max(start - NEIGHBOURHOOD - TREND // 2, 0)
    wide = values[left : end + NEIGHBOURHOOD + TREND // 2 + 1]
    trend = pd.Series(wide).rolling(TREND, center=True, min_periods=1).median().to_numpy()
    inner = slice(max(start - NEIGHBOURHOOD, 0) - left, end + NEIGHBOURHOOD + 1 - left)
    near = wide[inner]
    rest = near - trend[inner]
    rest = rest[np.isfinite(rest)]
    if len(rest) and (noise := TO_SIGMA * float(np.median(np.abs(rest - np.median(rest))))) > 0:
        return noise
    return smallest_step(near) or smallest_step(values)


def smallest_step(values: NDArray[np.float64]) -> float:
    """The smallest difference between two different finite `values` `(n,)`; 0.0 when all are equal."""
    steps = np.diff(np.unique(values[np.isfinite(values)]))
    return float(steps.min()) if len(steps) else 0.0


def inject(frame: pd.DataFrame, metrics: Sequence[str], how: Injection) -> tuple[pd.DataFrame, list[InjectedIncident]]:
    """A copy of `frame` with incidents in `metrics`, `label` (int8) and `kind` ("" where normal), and their list.

    `frame` is one of `ocad.timeseries.frame`: sorted by endpoint and time. Rows outside incidents keep their bits; a
    `label` it has is replaced. The incidents of an endpoint depend on the seed and its own rows alone. Raises
    `DataError` when no endpoint has room for an incident.
    """
    result = frame.copy()
    labels = np.zeros(len(frame), dtype=np.int8)
    kinds = np.full(len(frame), "", dtype=object)
    columns = {metric: frame[metric].to_numpy(dtype=np.float64, copy=True) for metric in metrics}
    incidents: list[InjectedIncident] = []
    for endpoint, rows in frame.groupby("endpoint", sort=True).indices.items():
        generator = _generator(how.seed, str(endpoint))
        times = frame["timestamp"].iloc[rows]
        natural = {metric: values[rows] for metric, values in columns.items()}
        clean = int(np.ceil(how.clean * len(rows)))
        for kind, start, end in _places(len(rows) - clean, how, generator):
            place = slice(clean + start, clean + end + 1)
            sizes, changed = _change(natural, place, kind, how, generator)
            for metric, values in changed.items():
                columns[metric][rows[place]] = values
            labels[rows[place]], kinds[rows[place]] = 1, kind
            first, last = (times.iloc[row].isoformat() for row in (place.start, place.stop - 1))
            where = (str(endpoint), kind, tuple(changed), place.start, place.stop - 1)
            incidents.append(InjectedIncident(*where, first, last, sizes))
    if not incidents:
        hint = f"give longer series, or a larger prevalence (at most {MOST:g})"
        raise DataError("no endpoint has room for an incident", hint)
    return result.assign(**columns, label=labels, kind=kinds), incidents


def check_out(out: Path) -> None:
    """Raises `UsageError` when `out` cannot be written as a parquet file."""
    if out.suffix != ".parquet":
        raise UsageError(f"`{out}` is no parquet file", f"write `--out {out.with_suffix('.parquet')}`")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder `{out.parent}`", "make it first")


def write(result: pd.DataFrame, incidents: Sequence[InjectedIncident], out: Path) -> Path:
    """Writes `result` to `out` (parquet) and the list of incidents beside it; the list's path, `out` with `.json`."""
    result.to_parquet(out, index=False)
    truth = out.with_suffix(".json")
    text = json.dumps([incident.to_json() for incident in incidents], indent=1, allow_nan=False)
    truth.write_text(text + "\n", encoding="utf-8")
    return truth


def _generator(seed: int, endpoint: str) -> np.random.Generator:
    """One stream for each endpoint, whatever other endpoints stand beside it."""
    digest = hashlib.sha256(endpoint.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def _places(rows: int, how: Injection, generator: np.random.Generator) -> list[tuple[str, int, int]]:
    """Kind, first and last row of each incident in `rows` rows: kinds in turn, in a drawn order, until one more is too much."""
    drawn: list[tuple[str, int]] = []
    total = 0
    while True:
        for kind in generator.permutation(np.array(how.kinds)).tolist():
            length = int(generator.integers(*LENGTHS[kind], endpoint=True))
            total += length
            if total > how.prevalence * rows or total + GUARD * (len(drawn) + 2) > rows:
                short = how.at_least_one and not drawn
                return _one(rows, how.kinds, generator) if short else _spread(drawn, rows, generator)
            drawn.append((kind, length))


def _spread(drawn: list[tuple[str, int]], rows: int, generator: np.random.Generator) -> list[tuple[str, int, int]]:
    """Places in order, a guard before, between and after them; the rows left over lie between them at random."""
    left = rows - sum(length for _, length in drawn) - GUARD * (len(drawn) + 1)
    places, next_row, spent = [], GUARD, 0
    for (kind, length), offset in zip(drawn, np.sort(generator.integers(left + 1, size=len(drawn))), strict=True):
        start = next_row + int(offset) - spent
        next_row, spent = start + length + GUARD, int(offset)
        places.append((kind, start, start + length - 1))
    return places


def _change(
    natural: dict[str, NDArray[np.float64]], place: slice, kind: str, how: Injection, generator: np.random.Generator
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The size of one incident by metric, and the new values of the rows in `place` by metric hit."""
    every = tuple(natural)
    chosen = every if how.correlated else (every[int(generator.integers(len(every)))],)
    sign = -1.0 if how.direction == "both" and generator.random() < 0.5 else 1.0
    shape = _shape(kind, place.stop - place.start, how, generator)
    if kind == "loss":
        return {}, {metric: np.full(len(shape), np.nan) for metric in chosen}
    sizes = {
        metric: sign * how.magnitude * _measurable(metric, local_noise(natural[metric], place.start, place.stop - 1))
        for metric in chosen
    }
    return sizes, {metric: natural[metric][place] + size * shape for metric, size in sizes.items()}


def _measurable(metric: str, noise: float) -> float:
    """`noise`; raises `DataError` where there is none, since a multiple of nothing would be a label without an incident."""
    if noise > 0:
        return noise
    raise DataError(f"metric `{metric}` is constant or missing on a whole endpoint", "choose others with `--metric`")


def _shape(kind: str, length: int, how: Injection, generator: np.random.Generator) -> NDArray[np.float64]:
    """What is added in each row (length,), as a share of the incident's size."""
    if kind == "drift":
        return np.arange(1, length + 1) / length
    if kind == "jitter":
        noise = generator.standard_normal(length)
        return noise if how.direction == "both" else np.abs(noise)
    return np.ones(length)


def _one(rows: int, kinds: Sequence[str], generator: np.random.Generator) -> list[tuple[str, int, int]]:
    """One incident of the shortest kind somewhere in the last two thirds; none where it would be more than a third."""
    kind = min(kinds, key=lambda kind: LENGTHS[kind][0])
    length = LENGTHS[kind][0]
    if 3 * length > rows:
        return []
    start = int(generator.integers(rows // 3, rows - length, endpoint=True))
    return [(kind, start, start + length - 1)]
