"""Power: what a detector finds of incidents that are put into rows it has not seen; a detector that never alarms has none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ocad.detection.events import incidents_of
from ocad.detection.hold import default_hold
from ocad.detection.inject import Injection, inject
from ocad.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

logger = logging.getLogger("ocad.data")

MAGNITUDE = 12.0
"""Robust local noise units that every metric is shifted by: one and a half times what a rolling median / MAD rule of 8 asks."""
_PREVALENCE = 0.1
_MOST_ROWS = 40_000
"""Rows that power is measured on at most, whole endpoints."""


class Scores(Protocol):
    """What scores a frame of `metrics`, as every detector and ensemble does."""

    metrics: tuple[str, ...]

    def score(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """The score of each row."""
        ...

    def forget(self) -> None:
        """Begins with a fresh state."""
        ...


def measure_power(detector: Scores, frame: pd.DataFrame, seed: int) -> dict[str, float]:
    """`power_loss` and `power_shift`: the shares that are in alarm, by the default hold-down, of incidents put into `frame`.

    `frame` has normal rows sorted by endpoint and time; a short one gets one short incident. A kind that there is no room for
    even so counts as found by none. The detector's state is fresh afterwards.
    """
    part = _some_endpoints(frame.drop(columns="label", errors="ignore"))
    return {f"power_{kind}": _found(detector, part, kind, seed) for kind in ("loss", "shift")}


def _found(detector: Scores, frame: pd.DataFrame, kind: str, seed: int) -> float:
    metrics = _varying(frame, detector.metrics) if kind == "shift" else detector.metrics
    how = Injection(
        magnitude=MAGNITUDE, prevalence=_PREVALENCE, seed=seed, kinds=(kind,), correlated=True, at_least_one=True
    )
    try:
        rows, _ = inject(frame, metrics, how)
    except DataError as error:
        logger.warning("the power against a %s is not known: %s", kind, error.message)
        return 0.0
    detector.forget()
    scores = detector.score(rows.drop(columns=["label", "kind"]))
    detector.forget()
    label, found = rows["label"].to_numpy(), list[bool]()
    for places in rows.groupby("endpoint", sort=False).indices.values():
        alarm = default_hold().run(scores[places])
        found += [bool(alarm[one.start : one.end + 1].any()) for one in incidents_of(label[places])]
    return float(np.mean(found))


def _varying(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """The metrics that vary on each endpoint: what never moves has no unit to be shifted by."""
    spread = frame.groupby("endpoint")[list(metrics)].nunique().min()
    return [metric for metric in metrics if spread[metric] > 1]


def _some_endpoints(frame: pd.DataFrame) -> pd.DataFrame:
    sizes = frame.groupby("endpoint", sort=False).size().cumsum()
    kept = sizes.index[: max(1, int((sizes <= _MOST_ROWS).sum()))]
    return frame[frame["endpoint"].isin(kept)].reset_index(drop=True)
