"""Metrics read as logarithm or root: columns and points alike, what has no logarithm is missing, stored with the detector."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests.detectors.feeding import METRICS, by_point, make_links

from ocad.detection.config import Scale
from ocad.detection.scaling import point_scales, scale_columns
from ocad.errors import UsageError
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.detector import ChangepointDetector

SCALES: dict[str, Scale] = {"udp_echo": "log", "ecpri": "log", "lbm": "log", "ccm": "root"}


def test_columns_are_scaled_as_points_are() -> None:
    values = np.array([[100.0, 0.25, 7.0], [0.0, 0.0, -1.0], [-3.0, -0.5, 2.0], [np.nan, np.nan, np.nan]])
    scales: dict[str, Scale] = {"delay": "log", "share": "root"}
    scaled = scale_columns(("delay", "share", "other"), scales, values)
    expected = [[math.log(100), 0.5, 7.0], [math.nan, 0.0, -1.0], [math.nan, math.nan, 2.0], [math.nan] * 3]
    assert np.array_equal(scaled, expected, equal_nan=True)
    for row, scaled_row in zip(values.tolist(), scaled.tolist(), strict=True):
        for place, scale in point_scales(("delay", "share", "other"), scales):
            row[place] = scale(row[place])
        assert np.array_equal(row, scaled_row, equal_nan=True)


def test_a_detector_reads_in_its_scales_row_by_row_and_loaded_again() -> None:
    detector = ChangepointDetector(METRICS, CusumSettings()).use_scales(SCALES)
    detector.fit(make_links(600))
    detector.calibrate(make_links(600, seed=2))
    frame = make_links(150, seed=3)
    scores = detector.score(frame)
    again = ChangepointDetector.from_json(json.loads(json.dumps(detector.to_json())))
    assert again.scales == SCALES
    assert np.allclose(by_point(again, frame), scores, rtol=1e-9, atol=1e-9)


def test_ten_times_as_slow_is_as_far_as_ten_times_as_fast_in_logarithms() -> None:
    detector = ChangepointDetector(("udp_echo",), CusumSettings(memory=0, clip=1e6, direction="both")).use_scales(
        {"udp_echo": "log"}
    )
    detector.fit(make_links(600, lost=0.0))
    row = make_links(1, ("a",))
    level = math.exp(detector.endpoints["a"].level[0] or 0.0)
    raw = []
    for value in (10 * level, level / 10):
        detector.forget()
        raw.append(float(detector.raw(row.assign(udp_echo=value))[0]))
    assert raw[0] == pytest.approx(raw[1], rel=1e-6)
    assert raw[0] > 10


def test_a_scale_for_a_metric_that_is_not_read_is_refused() -> None:
    with pytest.raises(UsageError, match="does not read `udp_ecko`"):
        ChangepointDetector(METRICS, CusumSettings()).use_scales({"udp_ecko": "log"})
