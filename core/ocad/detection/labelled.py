"""What a search for an alarm rule looks at: the members' scores on labelled rows, in blocks of time.

Scores are in noise units that no calibration moves, so a rule is searched on exactly what it is deployed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.detection.events import EventCounts, Interval, alerts_of, incidents_of, score_events
from ocad.errors import DataError

if TYPE_CHECKING:
    from ocad.detection.detector import SeriesDetector
    from ocad.detection.rule import AlarmRule

Floats = NDArray[np.float64]
MARGIN_ROWS = 40
"""Blocks end where no incident is, nor was within so many rows: none is cut in two."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one endpoint in one block of time, `rows` of the scores."""

    endpoint: str
    fold: int
    rows: slice
    incidents: Sequence[Interval]
    normal: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Members' `scores` `(n, k)` in the order of `segments`, which lie one behind the other."""

    scores: Floats
    segments: Sequence[Segment]

    @property
    def incidents(self) -> int:
        """Labelled incidents in all segments."""
        return sum(len(segment.incidents) for segment in self.segments)

    def count(self, rule: AlarmRule) -> list[EventCounts]:
        """What `rule` finds and raises in each segment, each from a fresh hold-down."""
        combined = rule.combine(self.scores)
        return [_count_segment(segment, rule, combined[segment.rows]) for segment in self.segments]


def gather(
    detectors: Sequence[SeriesDetector], frame: pd.DataFrame, considered: NDArray[np.bool_], folds: int
) -> Labelled:
    """The members' scores in the `considered` rows `(n,)` of `frame`, sorted by endpoint and time, with `label` (and `kind`).

    Detectors run over all rows, so that they are warm where the considered ones begin; their states are fresh afterwards.
    """
    label = frame["label"].to_numpy() == 1
    kind = frame["kind"].to_numpy(dtype=object) if "kind" in frame else None
    places, segments = _segments(frame, label, kind, considered, folds)
    order = np.concatenate(places)
    scores = np.empty((len(order), len(detectors)))
    for column, detector in enumerate(detectors):
        detector.forget()
        scores[:, column] = detector.score(frame)[order]
        detector.forget()
    return Labelled(scores, segments)


def require_labels(data: str, frame: pd.DataFrame, considered: NDArray[np.bool_]) -> None:
    """Raises `DataError` unless the considered rows have labels of both classes."""
    hint = "give data with labelled incidents; `ocad data inject` puts some into real series"
    if "label" not in frame:
        raise DataError(f"data `{data}` has no labels, which decide about weights and thresholds", hint)
    label = frame["label"].to_numpy()[considered]
    if not (label == 1).any():
        raise DataError(f"no row of data `{data}` that the composite is optimised on has label 1", hint)
    if (label == 1).all():
        raise DataError(f"every row of data `{data}` that the composite is optimised on has label 1", hint)


def _segments(
    frame: pd.DataFrame,
    label: NDArray[np.bool_],
    kind: NDArray[np.object_] | None,
    considered: NDArray[np.bool_],
    folds: int,
) -> tuple[list[NDArray[np.int64]], list[Segment]]:
    """The places in `frame` of each segment's rows, and the segments."""
    places: list[NDArray[np.int64]] = []
    segments: list[Segment] = []
    start = 0
    for endpoint, rows in frame.groupby("endpoint", sort=False).indices.items():
        kept = np.asarray(rows)[considered[rows]]
        for fold, block in enumerate(_blocks(kept, label[kept], folds)):
            if not len(block):
                continue
            part = slice(start, start + len(block))
            incidents = incidents_of(label[block], None if kind is None else kind[block])
            segments.append(Segment(str(endpoint), fold, part, incidents, ~label[block]))
            places.append(block)
            start = part.stop
    return places, segments


def _blocks(rows: NDArray[np.int64], label: NDArray[np.bool_], folds: int) -> Iterator[NDArray[np.int64]]:
    """`rows` in `folds` stretches of about the same length, which end outside of incidents."""
    recent = np.convolve(label, np.ones(MARGIN_ROWS), mode="full")[: len(label)] > 0.5
    calm = np.flatnonzero(~recent)
    start = 0
    for fold in range(1, folds + 1):
        place = int(np.searchsorted(calm, max(start, len(rows) * fold // folds)))
        end = int(calm[place]) if fold < folds and place < len(calm) else len(rows)
        yield rows[start:end]
        start = end


def _count_segment(segment: Segment, rule: AlarmRule, scores: Floats) -> EventCounts:
    rows = int(segment.normal.sum())
    if scores.max() < rule.on:
        return EventCounts(missed=len(segment.incidents), normal=rows)
    alarm = rule.hold().run(scores)
    found = score_events(segment.incidents, alerts_of(alarm, rule.rest))
    return found + EventCounts(normal=rows, alarmed=int((alarm & segment.normal).sum()))
