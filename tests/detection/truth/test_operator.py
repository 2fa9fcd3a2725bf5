"""The made export: every kind, no labels, the same for the same seed, incidents where the list says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.truth.operator import DAY, KINDS, LENGTHS, METRICS, OperatorExport, operator_export
from ocad.errors import UsageError


@settings(max_examples=10, deadline=None)
@given(links=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_incidents_are_apart_of_every_kind_alike_and_in_both_parts(links: int, seed: int) -> None:
    how = OperatorExport(links=links, seed=seed)
    frame, incidents = operator_export(how)
    assert list(frame.columns) == ["timestamp", "endpoint", "udp_echo"]
    assert frame.groupby("endpoint").size().tolist() == [10 * DAY] * links
    first = how.parts[0]
    for part in (True, False):
        counts = Counter(one.kind for one in incidents if (one.start < first) == part)
        assert sum(counts.values()) == links * (how.in_training if part else how.after)
        assert max(counts.values()) - min(counts[kind] for kind in KINDS) <= 1
    for endpoint in frame["endpoint"].unique():
        mine = [one for one in incidents if one.endpoint == endpoint]
        assert all(after.start - before.end > 200 for before, after in pairwise(mine))
        assert all(LENGTHS[one.kind][0] <= one.end - one.start + 1 <= LENGTHS[one.kind][1] for one in mine)


def test_what_happened_is_in_the_rows() -> None:
    frame, incidents = operator_export(OperatorExport(links=8, seed=5, metrics=METRICS))
    for one in incidents:
        rows = frame[frame["endpoint"] == one.endpoint].reset_index(drop=True)
        inside, before = rows.iloc[one.start : one.end + 1], rows.iloc[one.start - 100 : one.start]
        usual, noise = before["udp_echo"].median(), before["udp_echo"].std()
        match one.kind:
            case "outage":
                assert inside[["udp_echo", "ecpri", "lbm"]].isna().all(axis=None)
                assert (inside["ccm"] == 1).all()
            case "partial_loss":
                assert abs(inside["udp_echo"].isna().mean() - one.size) < 0.2
                assert abs(inside["ccm"].mean() - one.size) < 0.05
            case "level_shift" | "spike":
                assert inside["udp_echo"].median() / usual == pytest.approx(one.size, rel=0.15)
            case "congestion":
                assert inside["udp_echo"].quantile(0.7) > 1.2 * usual
            case "flapping":
                assert 0.2 < inside["udp_echo"].isna().mean() < 0.8
            case "jitter":
                assert inside["udp_echo"].std() > 4 * noise


def test_a_seed_makes_one_export_and_a_metric_is_the_same_beside_others() -> None:
    how = OperatorExport(links=2, seed=3)
    frame, incidents = operator_export(how)
    again, same = operator_export(how)
    pd.testing.assert_frame_equal(frame, again)
    assert incidents == same
    wide, _ = operator_export(OperatorExport(links=2, seed=3, metrics=METRICS))
    pd.testing.assert_series_equal(frame["udp_echo"], wide["udp_echo"])
    other, _ = operator_export(OperatorExport(links=2, seed=4))
    assert not np.array_equal(frame["udp_echo"], other["udp_echo"], equal_nan=True)


@pytest.mark.parametrize(("settings", "message"), [
    ({"metrics": ("udp_ech",)}, "no metric `udp_ech`"), ({"metrics": ()}, "a link and a metric"),
    ({"links": 0}, "a link and a metric"),
    ({"training": 1.0}, "training share `1`"), ({"days": 3}, "have no room"), ({"after": 9}, "9 incidents have no room"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OperatorExport(**settings)
