"""NAB's scorer: by hand in small cases, and against NAB's own result files for real ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from nab_score import PROFILES, NabSeries, corpus_score, read_corpus, score_series, windowed_gaussian

PUBLISHED = {
    "realTweets/Twitter_volume_AAPL.csv": 1.51399683626,
    "realAWSCloudwatch/ec2_disk_write_bytes_1ef3de.csv": -4.19089678552,
    "realAWSCloudwatch/grok_asg_anomaly.csv": 2.37942230674,
    "realTraffic/speed_7578.csv": 3.47059145681,
    "realKnownCause/nyc_taxi.csv": -5.0,
    "realAWSCloudwatch/ec2_cpu_utilization_c6585a.csv": -1.32,
}
"""Lines of `results/windowedGaussian/windowedGaussian_standard_scores.csv` in NAB's repository."""


def make_series(rows: int = 1_000, windows: tuple[tuple[int, int], ...] = ((300, 399), (600, 699))) -> NabSeries:
    labels = np.zeros(rows, np.int64)
    for first, last in windows:
        labels[first : last + 1] = 1
    return NabSeries.of("series", np.zeros(rows), labels)


def flags(*rows: int, length: int = 1_000) -> np.ndarray:
    found = np.zeros(length, dtype=bool)
    found[list(rows)] = True
    return found


def test_windows_and_the_rows_that_do_not_count() -> None:
    series = make_series()
    assert series.windows == ((300, 399), (600, 699))
    assert series.probation == 150
    assert make_series(20_000).probation == 750


def test_the_first_row_of_a_window_is_worth_one_and_later_ones_less() -> None:
    series = make_series()
    assert score_series(series, flags(300, 600)) == pytest.approx(2.0)
    late = (2 / (1 + math.exp(-5 * 1 / 100)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    assert score_series(series, flags(399)) == pytest.approx(late - 1)
    assert score_series(series, flags(320, 350, 399)) == score_series(series, flags(320))


def test_a_false_alarm_costs_the_more_the_later_it_comes() -> None:
    series = make_series()
    before, soon, later, far = (score_series(series, flags(300, 600, row)) - 2 for row in (200, 702, 750, 999))
    assert before == far == pytest.approx(-0.11)
    assert later == pytest.approx(0.11 * (2 / (1 + math.exp(5 * 51 / 99)) - 1))
    assert far < later < soon < 0


def test_detections_before_the_counted_rows_are_free() -> None:
    series = make_series()
    assert score_series(series, flags(0, 149)) == score_series(series, flags())


@pytest.mark.parametrize("name", PROFILES)
def test_no_detections_are_0_and_perfect_ones_100(name: str) -> None:
    corpus = [make_series(), make_series(windows=())]
    nothing, perfect = [flags(), flags()], [flags(300, 600), flags()]
    assert corpus_score(corpus, nothing, PROFILES[name]) == pytest.approx(0.0)
    assert corpus_score(corpus, perfect, PROFILES[name]) == pytest.approx(100.0)


@pytest.mark.shared_data
def test_the_windowed_gaussian_scores_as_nab_published(shared_data: Path) -> None:
    corpus = {series.name: series for series in read_corpus(shared_data / "nab" / "nab.parquet")}
    assert len(corpus) == 58
    assert sum(len(series.windows) for series in corpus.values()) == 116
    for name, published in PUBLISHED.items():
        detections = windowed_gaussian(corpus[name].values) >= 1.0
        assert score_series(corpus[name], detections) == pytest.approx(published, abs=1e-9), name
