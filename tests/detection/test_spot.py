"""SPOT and DSPOT on samples whose true quantiles are known, on drifting series, and piece by piece."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ocad.detection.spot import DriftSpot, Pareto, Spot, fit_pareto
from ocad.errors import DataError, UsageError

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

ROWS = 50_000
PROBABILITY = 1e-4


def pareto(shape: float) -> Draw:
    """Samples of the GPD with scale 1, by inverting its distribution function."""
    return lambda random, rows: np.expm1(-shape * np.log(random.random(rows))) / shape


SAMPLES: dict[str, tuple[Draw, float, float]] = {
    # name: how to draw, the true quantile of 1 - PROBABILITY, the relative error allowed with 1,000 peaks
    "exponential": (lambda random, rows: random.exponential(1.0, rows), -math.log(PROBABILITY), 0.15),
    "gaussian": (lambda random, rows: random.normal(0.0, 1.0, rows), 3.719016, 0.08),
    "heavy": (pareto(0.3), (PROBABILITY**-0.3 - 1) / 0.3, 0.4),
    "bounded": (pareto(-0.3), (1 - PROBABILITY**0.3) / 0.3, 0.05),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_is_the_quantile(name: str, seed: int) -> None:
    draw, truth, allowed = SAMPLES[name]
    spot = Spot(PROBABILITY)
    spot.fit(draw(np.random.default_rng(seed), ROWS))
    assert spot.threshold == pytest.approx(truth, rel=allowed)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_unit_does_not_matter(unit: float) -> None:
    values = np.random.default_rng(1).exponential(1.0, 5000)
    plain, other = Spot(), Spot()
    plain.fit(values)
    other.fit(values * unit)
    assert other.threshold == pytest.approx(plain.threshold * unit, rel=1e-5)


@pytest.mark.parametrize("shape", [-0.4, -0.2, 0.0, 0.2, 0.7])
@pytest.mark.parametrize("rows", [100, 1000, 10_000])
def test_no_other_tail_is_likelier(shape: float, rows: int) -> None:
    """Against a fine grid around the truth and around the fit itself."""
    random = np.random.default_rng(rows)
    values = pareto(shape)(random, rows) if shape else random.exponential(1.0, rows)
    found = fit_pareto(values)

    def likelihood(shape: float, scale: float) -> float:
        inner = 1 + shape / scale * values
        if (inner <= 0).any():
            return -math.inf
        tail = values.mean() / scale if abs(shape) < 1e-8 else (1 + 1 / shape) * np.log(inner).mean()
        return float(-math.log(scale) - tail)

    best = likelihood(found.shape, found.scale)
    others = [
        likelihood(found.shape + turn, found.scale * stretch)
        for turn in np.linspace(-0.2, 0.2, 41)
        for stretch in np.linspace(0.8, 1.25, 46)
    ]
    assert best >= max(others) - 1e-9
    assert best >= likelihood(shape, 1.0)


@pytest.mark.parametrize("shape", [-0.7, -0.4, 0.0, 1e-4, 0.3])
@pytest.mark.parametrize("rows", [50, 2000])
def test_last_digits_stay_last_digits(shape: float, rows: int) -> None:
    """What another processor's order of a sum changes in the values is not magnified in the tail."""
    random = np.random.default_rng(rows)
    values = pareto(shape)(random, rows) if shape else random.exponential(1.0, rows)
    plain = fit_pareto(values, 2.0, float(values.max()))
    turned = fit_pareto(values * (1 + random.choice([-2e-16, 0.0, 2e-16], rows)), 2.0, float(values.max()))
    assert turned.quantile(1e-3) == pytest.approx(plain.quantile(1e-3), rel=1e-12)


def test_censored_excesses_complete_the_tail() -> None:
    """Cut off at a bound, a heavy tail looks bounded; knowing how many are missing restores it."""
    values = pareto(0.3)(np.random.default_rng(6), 20_000)
    kept, bound = values[values < 8.0], 8.0
    cut, told = fit_pareto(kept), fit_pareto(kept, len(values) - len(kept), bound)
    assert cut.shape < 0.2
    assert told.shape == pytest.approx(0.3, abs=0.04)
    assert told.scale == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 1e-10, 0.3])
def test_a_quantile_of_the_tail_inverts_its_survival(shape: float) -> None:
    excess = Pareto(shape, 2.0).quantile(0.01)
    survival = math.exp(-excess / 2) if abs(shape) < 1e-8 else (1 + shape * excess / 2) ** (-1 / shape)
    assert survival == pytest.approx(0.01, rel=1e-6)


def test_the_share_of_alarms_in_a_stream() -> None:
    random = np.random.default_rng(5)
    spot = Spot(1e-3)
    spot.fit(random.exponential(1.0, 2000))
    alarms, _ = spot.run(random.exponential(1.0, 200_000))
    assert 0.0005 < alarms.mean() < 0.002


def test_the_threshold_improves_with_the_stream() -> None:
    """From 500 values (ten peaks) the tail is a guess; after 100,000 it is known better."""
    truth, before, after = -math.log(PROBABILITY), [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        spot = Spot(PROBABILITY)
        spot.fit(random.exponential(1.0, 500))
        before.append(abs(spot.threshold - truth))
        spot.run(random.exponential(1.0, 100_000))
        after.append(abs(spot.threshold - truth))
    assert np.mean(after) < min(float(np.mean(before)) / 2, 1.0)


def test_an_outlier_is_an_alarm_however_far_it_lies() -> None:
    values = np.random.default_rng(2).normal(size=20_000)
    near, far = Spot(), Spot()
    for spot, outlier in ((near, 20.0), (far, 1e9)):
        spot.fit(values[:2000])
        before = spot.threshold
        assert spot.step(outlier)
        assert spot.threshold == before
        spot.run(values[2000:])
    assert near.state() == far.state()


def test_missing_values_are_no_alarms_and_do_not_count() -> None:
    values = np.random.default_rng(2).normal(size=3000)
    plain, holed = Spot(1e-3), Spot(1e-3)
    plain.fit(values[:1000])
    holed.fit(np.insert(values[:1000], 500, np.nan))
    alarms, _ = plain.run(values[1000:])
    with_hole, _ = holed.run(np.insert(values[1000:], 700, np.nan))
    assert not holed.step(math.nan)
    assert with_hole[700] == 0
    assert np.delete(with_hole, 700).tolist() == alarms.tolist()
    assert holed.state() == plain.state()


def make(kind: str) -> Spot | DriftSpot:
    return Spot(1e-3) if kind == "spot" else DriftSpot(30, 1e-3)


@pytest.mark.parametrize("kind", ["spot", "dspot"])
def test_whole_in_pieces_and_one_by_one_are_the_same(kind: str) -> None:
    random = np.random.default_rng(11)
    first, rest = random.gumbel(size=1000), random.gumbel(size=6000)
    rest[random.integers(0, 6000, 60)] = np.nan
    whole, pieces, single = make(kind), make(kind), make(kind)
    for spot in (whole, pieces, single):
        spot.fit(first)
    alarms, thresholds = whole.run(rest)
    parts = []
    for part in np.split(rest, [1, 17, 18, 2500, 5999]):
        parts.append(pieces.run(part))
        restored = make(kind)
        restored.restore(json.loads(json.dumps(pieces.state(), allow_nan=False)))
        pieces = restored
    assert np.concatenate([part[0] for part in parts]).tolist() == alarms.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == thresholds.tolist()
    steps = [(single.threshold, single.step(value)) for value in rest.tolist()]
    assert [alarm for _, alarm in steps] == alarms.tolist()
    assert [threshold for threshold, _ in steps] == thresholds.tolist()
    assert whole.state() == pieces.state() == single.state()
    assert alarms.any()


def test_a_moving_level_hides_spikes_from_the_plain_threshold_only() -> None:
    """Spikes at the troughs of a wave stay below its crests, where SPOT's threshold lies; DSPOT follows the wave."""
    random, place = np.random.default_rng(4), np.arange(22_000)
    series = random.normal(size=22_000) + 10 * np.sin(2 * np.pi * place / 2000)
    spikes = np.arange(3500, 22_000, 2000)
    series[spikes] += 8
    plain, drift = Spot(), DriftSpot(50)
    plain.fit(series[:2000])
    drift.fit(series[:2000])
    missed, _ = plain.run(series[2000:])
    found, _ = drift.run(series[2000:])
    assert not missed[spikes - 2000].any()
    assert found[spikes - 2000].all()
    assert found.sum() - len(spikes) <= 0.001 * 20_000


def test_a_shift_that_stays_stays_an_alarm() -> None:
    """Alarms leave DSPOT's window alone, so that a fault does not become the normal state."""
    random = np.random.default_rng(9)
    drift = DriftSpot(50)
    drift.fit(random.normal(size=1000))
    alarms, _ = drift.run(random.normal(size=500) + 20)
    assert alarms.all()


def test_memory_is_bounded() -> None:
    random = np.random.default_rng(0)
    spot = Spot(1e-3, most_peaks=100)
    spot.fit(random.exponential(1.0, 20_000))
    spot.run(random.exponential(1.0, 50_000))
    assert len(spot.state()["excesses"]) == 100
    assert spot.threshold == pytest.approx(-math.log(1e-3), rel=0.25)


def test_ties_far_above_the_rest() -> None:
    values = np.r_[np.random.default_rng(0).normal(size=990), np.full(10, 40.0)]
    spot = Spot(1e-3)
    spot.fit(values)
    assert spot.threshold >= spot.peak_level
    assert math.isfinite(spot.threshold)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros(50), "50 values are too few to begin from: give at least 100"),
        (np.full(500, np.nan), "0 values are too few"),
        (np.full(500, 3.0), "the first values have no tail"),
        (np.r_[np.arange(450.0), np.full(50, 999.0)], "the first values have no tail"),
    ],
)
def test_values_without_a_tail(values: Floats, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Spot().fit(values)


def test_too_few_values_for_the_window() -> None:
    with pytest.raises(DataError, match="120 values are too few to begin from: give at least 130"):
        DriftSpot(30).fit(np.random.default_rng(0).normal(size=120))


@pytest.mark.parametrize("excesses", [[], [0.0, 0.0], [1.0, -1.0], [1.0, math.inf]])
def test_no_tail_for_bad_excesses(excesses: list[float]) -> None:
    with pytest.raises(DataError, match="no positive excess to fit a tail on"):
        fit_pareto(excesses)


@pytest.mark.parametrize(("probability", "level"), [(0.0, 0.98), (0.05, 0.98), (1e-4, 1.0), (1e-4, -0.5)])
def test_settings_out_of_range(probability: float, level: float) -> None:
    with pytest.raises(UsageError, match="they must be 0 < probability < 1 - level < 1"):
        Spot(probability, level)
    with pytest.raises(UsageError):
        DriftSpot(50, probability, level)


def test_a_window_of_nothing() -> None:
    with pytest.raises(UsageError, match="`depth` must be at least 1"):
        DriftSpot(0)
