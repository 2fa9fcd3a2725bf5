"""Rolling features: the same by row, in pieces and as a whole, finite whatever comes, and telling what they say they tell."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocad.detection.features import ALONE, EACH, JOINT, RollingFeatures
from ocad.errors import DataError

Floats = NDArray[np.float64]
VALUES = st.one_of(st.floats(0, 1e4), st.floats(allow_nan=True, allow_infinity=False), st.just(float("nan")))


def fitted(metrics: int = 1, rows: int = 600, seed: int = 5) -> RollingFeatures:
    generator = np.random.default_rng(seed)
    names = [f"m{place}" for place in range(metrics)]
    return RollingFeatures.fit(names, {"a": generator.normal(100, 10, (rows, metrics))})


def by_row(features: RollingFeatures, breaks: NDArray[np.bool_], values: Floats) -> tuple[Floats, Any]:
    state = features.fresh()
    rows = []
    for broken, row in zip(breaks.tolist(), values.tolist(), strict=True):
        rows.append(features.row("a", state, broken, row))
        state = json.loads(json.dumps(state))
    return np.array(rows), state


def column(features: RollingFeatures, values: Floats, name: str) -> Floats:
    """The feature `name` of one metric's `values` `(n,)`, from a fresh state."""
    breaks = np.arange(len(values)) == 0
    rows: Floats = features.rows("a", features.fresh(), breaks, values[:, None])
    return rows[:, features.names.index(name)]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    metrics=st.integers(1, 3),
    rows=st.integers(1, 40),
)
def test_rows_pieces_and_single_rows_are_the_same(data: st.DataObject, metrics: int, rows: int) -> None:
    features = fitted(metrics)
    values = np.array(
        data.draw(st.lists(st.lists(VALUES, min_size=metrics, max_size=metrics), min_size=rows, max_size=rows))
    )
    breaks = np.array([True, *data.draw(st.lists(st.booleans(), min_size=rows - 1, max_size=rows - 1))])
    cut = data.draw(st.integers(0, rows))
    whole, state = features.rows("a", first := features.fresh(), breaks, values), first
    pieces = features.fresh()
    parts = [features.rows("a", pieces, breaks[part], values[part]) for part in (slice(cut), slice(cut, None))]
    single, streamed = by_row(features, breaks, values)
    assert whole.shape == (rows, len(features.names))
    assert np.isfinite(whole.astype(np.float32)).all()
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-9)
    np.testing.assert_allclose(single, whole, rtol=0, atol=1e-9)
    assert streamed["rows"] == state["rows"]
    for part in ("tracks", "blocks"):
        np.testing.assert_allclose(streamed[part], state[part], rtol=0, atol=1e-9)


def test_levels_are_relative_to_the_endpoints_own_normal() -> None:
    generator = np.random.default_rng(3)
    near, far = generator.normal(100, 1, 900), generator.normal(5_000, 200, 900)
    features = RollingFeatures.fit(["m"], {"near": near[:, None], "far": far[:, None]})
    breaks = np.zeros(900, bool)
    levels = [features.rows(name, features.fresh(), breaks, rows[:, None])[:, 0] for name, rows in
              (("near", near), ("far", far))]  # fmt: skip
    for level in levels:
        assert abs(np.median(level)) < 0.1
        assert np.quantile(np.abs(level), 0.99) < 2
    assert features.rows("near", features.fresh(), breaks[:1], far[:1, None])[0, 0] > 8
    unseen = features.rows("never seen", features.fresh(), breaks, far[:, None])[:, 0]
    assert np.abs(unseen).max() < 4  # measured by both endpoints together


def test_each_feature_tells_its_own_kind_of_incident() -> None:
    features, generator = fitted(), np.random.default_rng(8)
    calm = generator.normal(100, 10, 1_000)
    shifted, jittery, lossy, spiky = (calm.copy() for _ in range(4))
    shifted[500:] += 60
    jittery[500:] += generator.normal(0, 60, 500)
    lossy[500::2] = np.nan
    spiky[500] += 200
    usual = {name: np.abs(column(features, calm, f"m0_{name}")[300:]).max() for name in EACH + ALONE}
    incidents = (
        ("shift", shifted, 510),
        ("smooth", shifted, 900),
        ("jitter", jittery, 520),
        ("level", spiky, 500),
        ("deviation", spiky, 500),
    )
    for name, values, row in incidents:
        assert abs(column(features, values, f"m0_{name}")[row - 5 : row + 5]).max() > 1.2 * usual[name], name
    assert usual["missing"] == 0
    assert column(features, lossy, "m0_missing")[600:].mean() == pytest.approx(0.5, abs=0.1)
    assert column(features, calm, "m0_missing").max() == 0


def test_a_level_that_stays_becomes_usual_and_survives_a_gap() -> None:
    features = fitted()
    values = np.full(3_000, 180.0)
    settled = column(features, values, "m0_deviation")
    assert settled[0] > 2
    assert abs(settled[-1]) < 0.01
    breaks = np.zeros(3_001, bool)
    breaks[[0, 3_000]] = True
    rows = features.rows("a", features.fresh(), breaks, np.append(values, 180.0)[:, None])
    after = dict(zip(features.names, rows[-1].tolist(), strict=True))
    assert abs(after["m0_deviation"]) < 0.01
    assert abs(after["m0_shift"]) < 0.01
    assert after["m0_jitter"] < np.log(1.1)  # the jump over a gap is no step


def test_joint_features_see_what_hits_all_and_what_hits_one() -> None:
    features = fitted(metrics=4)
    assert features.names[-len(JOINT) :] == JOINT
    assert fitted(metrics=1).names == tuple(f"m0_{name}" for name in EACH + ALONE)
    calm = np.full((1, 4), 100.0)
    one, all_of_them = calm.copy(), calm + 20
    one[0, 2] -= 80
    breaks = np.array([True])
    found = {
        name: dict(zip(features.names, features.rows("a", features.fresh(), breaks, rows)[0].tolist(), strict=True))
        for name, rows in (("one", one), ("all", all_of_them))
    }
    assert found["all"]["mean_deviation"] > 1
    assert found["one"]["largest_deviation"] == pytest.approx(-found["one"]["m2_deviation"])
    assert found["one"]["largest_deviation"] > found["all"]["largest_deviation"]


def test_constant_and_sparse_metrics_are_measured() -> None:
    zeros, generator = np.zeros((500, 1)), np.random.default_rng(1)
    share = RollingFeatures.fit(["ccm"], {"a": zeros})
    assert share.rows("a", share.fresh(), np.array([True]), np.array([[0.2]]))[0, 0] > 3
    sparse = np.full((500, 1), np.nan)
    sparse[:5] = 7_000.0
    features = RollingFeatures.fit(["m"], {"sparse": sparse, "full": generator.normal(100, 10, (500, 1))})
    assert features.normals["sparse"] == features.everywhere
    assert RollingFeatures.from_json(["m"], json.loads(json.dumps(features.to_json()))).normals == features.normals


def test_a_metric_without_values_is_named() -> None:
    with pytest.raises(DataError, match="the metric `lbm` has no value to learn from"):
        RollingFeatures.fit(["ecpri", "lbm"], {"a": np.array([[1.0, np.nan], [2.0, np.nan]])})
