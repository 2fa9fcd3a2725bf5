"""CUSUM over several metrics and links: groups, what peers have in common, even units, prompt ends."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.detectors.feeding import METRICS, by_point, make_links

from ocad.detection.sums import point_sum, window_sums
from ocad.errors import ConfigError
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.detector import ChangepointDetector

LINKS = ("a", "b", "c", "d")
TOGETHER = {"together": [["udp_echo", "lbm"], ["udp_echo", "ecpri", "lbm"]]}
PEERS = {"peers": {"udp_echo": 0.9, "lbm": 0.9}, "peer_weight": 0.5}


def make_cusum(**cusum: Any) -> ChangepointDetector:
    """Fitted and calibrated on four links that share half of their noise."""
    detector = ChangepointDetector(METRICS, CusumSettings.model_validate(cusum))
    detector.fit(shared_noise(make_links(600, LINKS, lost=0.0), 1))
    detector.calibrate(shared_noise(make_links(600, LINKS, 2, lost=0.0), 2))
    return detector


def shared_noise(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`frame` with a slow wander of `udp_echo` and `lbm` that is the same for all links."""
    seconds = (frame["timestamp"] - frame["timestamp"].min()).dt.total_seconds().astype(int).to_numpy()
    steps = np.random.default_rng(seed).normal(0, 10, seconds.max() + 1)
    wander = np.convolve(steps, np.ones(5), mode="same")[seconds]
    return frame.assign(udp_echo=frame["udp_echo"] + wander, lbm=frame["lbm"] + wander)


def cut(frame: pd.DataFrame, places: list[int]) -> list[pd.DataFrame]:
    """`frame` in pieces that end at `places`."""
    bounds = [0, *sorted(places), len(frame)]
    return [frame.iloc[first:last] for first, last in itertools.pairwise(bounds)]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**16),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from(
        [
            TOGETHER,
            PEERS,
            TOGETHER | PEERS | {"window": 6, "shortest": 6, "prompt": True, "direction": "up"},
            TOGETHER | PEERS | {"window": 9, "shortest": 3, "prompt": True, "block": 5, "memory": 3},
        ]
    ),
    st.lists(st.integers(0, 500), max_size=4),
)
def test_rows_in_the_order_of_time_score_as_a_whole_frame(
    seed: int, lost: float, cusum: dict[str, Any], cuts: list[int]
) -> None:
    detector = make_cusum(**cusum)
    frame = shared_noise(make_links(120, (*LINKS, "never seen"), seed, lost), seed)
    ordered = frame.sort_values(["timestamp", "endpoint"], ignore_index=True)
    whole = detector.score(ordered)
    again = ChangepointDetector.from_json(json.loads(json.dumps(detector.to_json())))
    assert np.allclose(by_point(again, ordered), whole, rtol=1e-9, atol=1e-9)
    again.forget()
    pieces = [again.score(piece) for piece in cut(ordered, cuts) if len(piece)]
    assert np.allclose(np.concatenate(pieces), whole, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(arrays(np.float64, (30, 2), elements=st.floats(-5, 5)), st.integers(2, 9), st.data(), st.booleans())
def test_sums_of_at_least_some_rows(deviations: np.ndarray, window: int, data: st.DataObject, prompt: bool) -> None:
    shortest = data.draw(st.integers(1, window))
    drifts = [rows + 1.0 for rows in range(window)]
    found = window_sums(deviations - 1.0, window, shortest, prompt)
    for row in range(window, len(deviations)):
        for column in range(2):
            newest = deviations[row - window + 1 : row + 1, column][::-1].tolist()
            largest = max(sum(newest[:length]) - length for length in range(shortest, window + 1))
            expected = largest if newest[0] > 1.0 or not prompt else 0.0
            assert found[row - window, column] == pytest.approx(expected, abs=1e-9)
            assert point_sum(newest, drifts, False, shortest, prompt) == pytest.approx(max(expected, 0.0), abs=1e-9)


def test_little_in_each_of_two_metrics_stands_out_in_their_sum() -> None:
    frame = make_links(300, ("a",), 5, lost=0.0)
    rise = np.where((np.arange(300) >= 200) & (np.arange(300) < 210), 12.0, 0.0)
    frame = frame.assign(udp_echo=frame["udp_echo"] + rise, lbm=frame["lbm"] + rise)
    quiet = make_links(600, ("a",), lost=0.0), make_links(600, ("a",), 2, lost=0.0)
    scores = {}
    for name, cusum in {"apart": {}, "together": TOGETHER}.items():
        detector = ChangepointDetector(METRICS[:3], CusumSettings.model_validate({"memory": 0} | cusum))
        detector.fit(quiet[0])
        detector.calibrate(quiet[1])
        scores[name] = detector.score(frame)[205:210].max()
    assert scores["together"] > scores["apart"]


def test_what_all_links_have_in_common_is_nobodys_incident() -> None:
    frame = make_links(200, LINKS, 6, lost=0.0)
    place = frame.groupby("endpoint").cumcount().to_numpy()
    inside = (place >= 100) & (place < 130)
    everywhere = frame.assign(udp_echo=frame["udp_echo"] + np.where(inside, 80.0, 0.0))
    one = frame.assign(udp_echo=frame["udp_echo"] + np.where(inside & (frame["endpoint"] == "b"), 80.0, 0.0))
    settled = inside & (place >= 112)
    shares = []
    for peers in (PEERS, {}):
        detector = make_cusum(window=6, shortest=6, direction="up", clip=20.0, **peers)
        common = detector.raw(everywhere)[settled].mean()
        detector.forget()
        shares.append(common / detector.raw(one)[settled & (frame["endpoint"] == "b")].mean())
    assert shares[0] ** 2 < 0.6  # evidence grows with the root of a sum
    assert shares[1] > 0.9


def test_a_prompt_sum_ends_with_the_change() -> None:
    frame = make_links(150, ("a",), 7, lost=0.0)
    rise = (np.arange(150) >= 100) & (np.arange(150) < 104)
    raw = {}
    for prompt in (False, True):
        detector = make_cusum(prompt=prompt, direction="up")
        raw[prompt] = detector.raw(frame.assign(ecpri=frame["ecpri"] + np.where(rise, 200.0, 0.0)))
    assert raw[False][106] > 8
    assert raw[True][104:112].max() < 6
    assert raw[True][103] == raw[False][103]


def test_a_group_of_a_metric_that_is_not_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="names `jitter`, which is not read"):
        ChangepointDetector(METRICS, CusumSettings(together=(("udp_echo", "jitter"),)))
