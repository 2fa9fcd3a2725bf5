"""The likelihood-ratio oracle: its false alarms are those allowed, and larger incidents are never harder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.inject import KINDS, LENGTHS, InjectedIncident
from ocad.detection.truth.limit import LikelihoodRatio
from ocad.errors import DataError

LEVEL = 1000.0


def drawn(rows: int, seed: int, freedom: float = 3.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return LEVEL + np.random.default_rng(seed).standard_t(freedom, rows)


def put(
    kind: str, length: int, size: float, seed: int = 9
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], InjectedIncident]:
    values = drawn(400, seed)
    rows = slice(200, 200 + length)
    shape = np.arange(1, length + 1) / length if kind == "drift" else np.ones(length)
    if kind == "jitter":
        shape = np.abs(np.random.default_rng(seed + 1).standard_normal(length))
    values[rows] = np.nan if kind == "loss" else values[rows] + size * shape
    sizes = {} if kind == "loss" else {"udp_echo": size}
    return values, InjectedIncident("a", kind, ("udp_echo",), rows.start, rows.stop - 1, "", "", sizes)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), rate=st.sampled_from([0.0, 0.001, 0.01]), data=st.data()
)
def test_at_most_the_allowed_false_alarms_on_clean_rows(kind: str, seed: int, rate: float, data: st.DataObject) -> None:
    clean = drawn(3000, seed)
    clean[np.random.default_rng(seed).random(3000) < 0.01] = np.nan
    oracle = LikelihoodRatio(clean)
    length = data.draw(st.integers(*LENGTHS[kind]))
    above = oracle.evidence(clean, kind, length, 6.0) > oracle.threshold(kind, length, 6.0, rate)
    places = np.flatnonzero(above)
    clusters = len(np.unique(places // max(30, length)))
    assert clusters <= rate * len(clean)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_incident_is_found(kind: str) -> None:
    values, incident = put(kind, LENGTHS[kind][1], 30.0)
    assert LikelihoodRatio(drawn(20_000, 1)).finds(values, incident, 0.001)


@pytest.mark.parametrize("kind", ["spike", "shift", "drift", "jitter"])
def test_a_tiny_incident_is_not(kind: str) -> None:
    values, incident = put(kind, LENGTHS[kind][0], 0.01)
    assert not LikelihoodRatio(drawn(20_000, 1)).finds(values, incident, 0.0001)


def test_length_makes_up_for_size() -> None:
    oracle = LikelihoodRatio(drawn(20_000, 1))
    found = {
        length: np.mean([oracle.finds(*put("shift", length, 2.5, seed), 0.0005) for seed in range(20)])
        for length in (1, 10, 40)
    }
    assert found[1] < found[10] <= found[40]
    assert found[40] > 0.9


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 60), length=st.integers(1, 40), seed=st.integers(0, 100))
def test_loss_is_counted_over_the_last_rows(rows: int, length: int, seed: int) -> None:
    values = drawn(rows, seed)
    values[np.random.default_rng(seed).random(rows) < 0.3] = np.nan
    told = LikelihoodRatio(drawn(300, 1)).evidence(values, "loss", length, 0.0)
    assert told.tolist() == [np.isnan(values[max(0, row - length + 1) : row + 1]).sum() for row in range(rows)]


def test_tails_are_told_from_none() -> None:
    assert LikelihoodRatio(drawn(5000, 1, freedom=1.5)).freedom < 3
    assert LikelihoodRatio(LEVEL + np.random.default_rng(1).standard_normal(5000)).freedom >= 10


@pytest.mark.parametrize("clean", [np.full(500, 3.0), np.full(500, np.nan), drawn(100, 1)])
def test_noise_that_cannot_be_known_is_refused(clean: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    with pytest.raises(DataError, match="do not tell a link's noise"):
        LikelihoodRatio(clean)
