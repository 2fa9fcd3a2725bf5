"""What the search looks at: the members' surprises on labelled rows that none of them was calibrated on.

Members were fitted on the training part, so their raw scores on the validation part are honest, but their calibration has
seen its normal rows. It is therefore cross-fitted here: the rows of each block of time are calibrated on the normal rows of
the other blocks, scored as the members' own calibration scored them, without the incidents between them. The version
itself uses the members' own calibration, which has seen a little more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.detection.calibration import Calibration
from ocad.detection.detector import SeriesDetector
from ocad.detection.events import EventCounts, Interval, alerts_of, incidents_of, score_events
from ocad.detection.rule import AlarmRule
from ocad.errors import DataError

Floats = NDArray[np.float64]
MARGIN_ROWS = 40
"""Blocks end where no incident is, nor was within so many rows: none is cut in two."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one endpoint in one block of time, `rows` of the evidence."""

    endpoint: str
    fold: int
    rows: slice
    incidents: Sequence[Interval]
    normal: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Cross-fitted `surprises` `(n, k)` in the order of `segments`, which lie one behind the other."""

    surprises: Floats
    segments: Sequence[Segment]

    @property
    def incidents(self) -> int:
        """Labelled incidents in all segments."""
        return sum(len(segment.incidents) for segment in self.segments)

    def count(self, rule: AlarmRule, folds: Sequence[int]) -> list[EventCounts]:
        """What `rule` finds and raises in the segments of each of `folds`, every segment from a fresh hold-down."""
        combined = rule.combine(self.surprises)
        gated = rule.gate(self.surprises, combined)
        counts = dict.fromkeys(folds, EventCounts())
        for segment in self.segments:
            if segment.fold in counts:
                counts[segment.fold] += _count_segment(segment, rule, gated[segment.rows])
        return list(counts.values())

    def normal_scores(self, rule: AlarmRule) -> dict[str, Floats]:
        """The weighted sums of the normal rows by endpoint, to calibrate the composite on."""
        combined = rule.combine(self.surprises)
        found: dict[str, list[Floats]] = {}
        for segment in self.segments:
            found.setdefault(segment.endpoint, []).append(combined[segment.rows][segment.normal])
        return {endpoint: np.concatenate(parts) for endpoint, parts in found.items()}


def gather(
    detectors: Sequence[SeriesDetector], frame: pd.DataFrame, considered: NDArray[np.bool_], folds: int
) -> Evidence:
    """The evidence in the `considered` rows `(n,)` of `frame`, sorted by endpoint and time, with a column `label`.

    Detectors run over all rows, so that they are warm where the considered ones begin; their states are fresh afterwards.
    """
    label = frame["label"].to_numpy() == 1
    places, segments = _segments(frame, label, considered, folds)
    order = np.concatenate(places)
    surprises = np.empty((len(order), len(detectors)))
    for column, detector in enumerate(detectors):
        raw = _run(detector, frame)
        calm = np.zeros(len(frame))
        calm[considered & ~label] = _run(detector, frame[considered & ~label])
        pooled = detector.calibration is not None and detector.calibration.pooled
        _cross_fit(raw[order], calm[order], surprises[:, column], segments, folds, pooled)
    return Evidence(surprises, segments)


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


def _run(detector: SeriesDetector, frame: pd.DataFrame) -> Floats:
    detector.forget()
    raw = detector.raw(frame)
    detector.forget()
    return raw


def _segments(
    frame: pd.DataFrame, label: NDArray[np.bool_], considered: NDArray[np.bool_], folds: int
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
            segments.append(Segment(str(endpoint), fold, part, incidents_of(label[block]), ~label[block]))
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


def _cross_fit(
    raw: Floats, calm: Floats, surprises: Floats, segments: Sequence[Segment], folds: int, pooled: bool
) -> None:
    """Fills `surprises` from the `raw` scores of each fold by a calibration on the `calm` ones of the other folds.

    `calm` are raw scores of the normal rows where no incident is among them; in other rows they mean nothing. `pooled` as
    the detector's own calibration is.
    """
    for fold in range(folds):
        inside = [segment for segment in segments if segment.fold == fold]
        others: dict[str, list[Floats]] = {}
        for segment in segments:
            if segment.fold != fold:
                others.setdefault(segment.endpoint, []).append(calm[segment.rows][segment.normal])
        if not inside:
            continue
        calibration = Calibration.fit({endpoint: np.concatenate(parts) for endpoint, parts in others.items()}, pooled)
        for segment in inside:
            surprises[segment.rows] = calibration.surprise(segment.endpoint, raw[segment.rows])


def _count_segment(segment: Segment, rule: AlarmRule, gated: Floats) -> EventCounts:
    rows = int(segment.normal.sum())
    if gated.max() < rule.on:
        return EventCounts(missed=len(segment.incidents), normal=rows)
    alarm = rule.hold().run(gated)
    found = score_events(segment.incidents, alerts_of(alarm))
    return found + EventCounts(normal=rows, alarmed=int((alarm & segment.normal).sum()))
