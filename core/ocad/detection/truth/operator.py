"""An operator's export as it comes on the first day: some links, ten days, one row a minute, plain incidents, no labels.

Made, not recorded: every link has a level, a daily rhythm, noise with tails and a few lost rows of its own. What happened is
returned beside the frame and never in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.detection.truth.backgrounds import seeded
from ocad.errors import UsageError, nearest

LENGTHS = {
    "outage": (15, 180),
    "partial_loss": (60, 180),
    "level_shift": (120, 600),
    "congestion": (180, 300),
    "flapping": (40, 90),
    "spike": (2, 5),
    "jitter": (30, 90),
}
"""Kind → least and most rows of an incident, both included."""
KINDS = tuple(LENGTHS)
METRICS = ("udp_echo", "ecpri", "lbm", "ccm")
SHARES = {"udp_echo": 1.0, "ecpri": 0.45, "lbm": 0.6}
"""A metric's level as a share of the link's round-trip time; `ccm` has none: it is a share of lost checks."""
DAY = 1440
SPACING = 240
"""Rows without incident before and after each."""
CHECKS = 100
"""Continuity checks a minute that `ccm` is the lost share of."""
_EVENING = 20 * 60

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OperatorExport:
    """What to make. Raises `UsageError` naming the first setting out of range."""

    links: int = 6
    days: int = 10
    seed: int = 1
    metrics: tuple[str, ...] = ("udp_echo",)
    training: float = 0.6
    """The first share of the rows that detectors may be trained on; incidents are in it as well."""
    in_training: int = 2
    """Incidents of each link in the training part."""
    after: int = 3
    """Incidents of each link after it."""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in METRICS:
                raise UsageError(f"an export has no metric `{metric}`", nearest(metric, METRICS))
        if self.links < 1 or not self.metrics:
            raise UsageError("an export needs a link and a metric", "give at least one of each")
        if not 0.0 < self.training < 1.0:
            raise UsageError(f"training share `{self.training:g}` is not in (0, 1)", "give a share such as 0.6")
        for rows, count in zip(self.parts, (self.in_training, self.after), strict=True):
            if rows < count * (DAY + SPACING):
                message = f"{count} incidents have no room in {rows} rows of a link"
                raise UsageError(message, f"give at least {count * (DAY + SPACING)} rows, or fewer incidents")

    @property
    def parts(self) -> tuple[int, int]:
        """Rows of a link in the training part and after it."""
        first = int(self.training * self.days * DAY)
        return first, self.days * DAY - first


@dataclass(frozen=True, slots=True)
class ExportIncident:
    """The truth about rows `start` to `end` (both included) of a link, numbered from 0 in its own rows."""

    endpoint: str
    kind: str
    start: int
    end: int
    size: float
    """Times the usual delay, lost share, or for jitter times the usual noise."""


@dataclass(frozen=True, slots=True)
class _Effect:
    """What an incident does to each of its rows `(n,)`: `times` the delay, `noise` times the noise, `lost` probability."""

    times: Floats
    noise: Floats
    lost: Floats


def operator_export(how: OperatorExport) -> tuple[pd.DataFrame, list[ExportIncident]]:
    """The frame (`timestamp`, `endpoint`, the metrics; delays in µs, `ccm` as a share) and what happened in it.

    Kinds are dealt in turn over the links, so that each of them occurs as often as any other; the same seed makes the same
    export.
    """
    dealer = np.random.default_rng(how.seed)
    decks = [_deck(how.links * count, dealer) for count in (how.in_training, how.after)]
    parts, incidents = [], list[ExportIncident]()
    times = pd.date_range("2026-03-02", periods=how.days * DAY, freq="min", tz="UTC").as_unit("us")
    for number in range(how.links):
        endpoint = f"link-{number + 1:02d}"
        generator = seeded(how.seed, endpoint)
        kinds = [deck[number :: how.links] for deck in decks]
        mine = _places(endpoint, kinds, how, generator)
        columns = _link(mine, how, generator)
        parts.append(pd.DataFrame({"timestamp": times, "endpoint": endpoint, **columns}))
        incidents += mine
    return pd.concat(parts, ignore_index=True), incidents


def _deck(cards: int, generator: np.random.Generator) -> list[str]:
    """`cards` kinds, each as often as any other, in a drawn order."""
    turns = [generator.permutation(np.array(KINDS)).tolist() for _ in range(-(-cards // len(KINDS)))]
    return [kind for turn in turns for kind in turn][:cards]


def _places(
    endpoint: str, kinds: Sequence[Sequence[str]], how: OperatorExport, generator: np.random.Generator
) -> list[ExportIncident]:
    """Each incident in a slot of its own, at least `SPACING` rows from the slot's ends; congestion begins in the evening."""
    found, first = [], 0
    for part, rows in zip(kinds, how.parts, strict=True):
        slot = rows // max(len(part), 1)
        for number, kind in enumerate(part):
            length = int(generator.integers(*LENGTHS[kind], endpoint=True))
            earliest, latest = SPACING // 2, slot - SPACING // 2 - length
            start = first + number * slot + int(generator.integers(earliest, latest, endpoint=True))
            if kind == "congestion":
                start = _evening(start, first + number * slot + earliest, first + number * slot + latest)
            found.append(ExportIncident(endpoint, kind, start, start + length - 1, _size(kind, generator)))
        first += rows
    return found


def _evening(start: int, earliest: int, latest: int) -> int:
    """The evening next to `start` that is not before `earliest` nor after `latest`; `start` where there is none."""
    evenings = np.arange(_EVENING - 120, latest + 1, DAY)
    evenings = evenings[evenings >= earliest]
    return int(evenings[np.abs(evenings - start).argmin()]) if len(evenings) else start


def _size(kind: str, generator: np.random.Generator) -> float:
    low, high = {
        "outage": (1.0, 1.0),
        "partial_loss": (0.2, 0.6),
        "level_shift": (1.3, 10.0),
        "congestion": (1.5, 3.0),
        "flapping": (1.0, 1.0),
        "spike": (4.0, 10.0),
        "jitter": (8.0, 15.0),
    }[kind]
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _effect(incident: ExportIncident, generator: np.random.Generator) -> _Effect:
    length = incident.end - incident.start + 1
    one, zero = np.ones(length), np.zeros(length)
    match incident.kind:
        case "outage" | "partial_loss":
            return _Effect(one, one, one * incident.size)
        case "flapping":
            spans = generator.integers(2, 6, size=length, endpoint=True)
            down = np.repeat(np.arange(length) % 2 == 0, spans)[:length]
            return _Effect(one, one, down.astype(np.float64))
        case "congestion":
            rise = np.interp(np.linspace(0, 1, length), (0, 0.4, 0.7, 1), (0, 1, 1, 0))
            return _Effect(1 + (incident.size - 1) * rise, 1 + rise, 0.02 * rise)
        case "jitter":
            return _Effect(one, one * incident.size, zero)
        case _:  # a level, for long or for minutes
            return _Effect(one * incident.size, one, zero)


def _link(
    incidents: Sequence[ExportIncident], how: OperatorExport, generator: np.random.Generator
) -> dict[str, Floats]:
    """The columns of one link, every incident in all of them."""
    rows = how.days * DAY
    level = float(np.exp(generator.uniform(np.log(300), np.log(60_000))))
    rhythm = 1 + generator.uniform(0, 0.06) * 0.5 * (1 + np.cos(2 * np.pi * (np.arange(rows) - _EVENING) / DAY))
    effect = _Effect(np.ones(rows), np.ones(rows), np.full(rows, generator.uniform(0, 0.003)))
    for incident in incidents:
        place, own = slice(incident.start, incident.end + 1), _effect(incident, generator)
        effect.times[place], effect.noise[place] = own.times, own.noise
        effect.lost[place] = np.maximum(effect.lost[place], own.lost)
    spread = generator.uniform(0.005, 0.025)
    columns = {}
    for metric in METRICS:  # all of them are drawn, so that a metric is the same whichever others are asked for
        lost = generator.random(rows) < effect.lost
        if metric == "ccm":
            columns[metric] = generator.binomial(CHECKS, effect.lost) / CHECKS
            continue
        usual = level * SHARES[metric] * rhythm
        values = usual * (effect.times + spread * effect.noise * _noise(rows, generator))
        columns[metric] = np.where(lost, np.nan, np.maximum(np.round(values), 1.0))
    return {metric: columns[metric] for metric in how.metrics}


def _noise(rows: int, generator: np.random.Generator) -> Floats:
    """Noise of deviation about 1 with the tails of a Student t of five degrees of freedom, a little persistent."""
    drawn, kept = generator.standard_t(5, rows), generator.uniform(0, 0.4)
    return np.asarray((drawn + kept * np.concatenate([[0.0], drawn[:-1]])) / np.sqrt(1 + kept**2))
