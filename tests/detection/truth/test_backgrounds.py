"""Clean backgrounds: quiet rows only, about one level, each link by its own rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.truth.backgrounds import clean_backgrounds, quiet_rows, stationary_bootstrap
from ocad.detection.truth.natural import natural_events
from ocad.errors import DataError

START = pd.Timestamp("2026-01-01", tz="UTC")


def eventful(rows: int = 3000, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A series with a new level, an outage and spikes."""
    values = 1000 + np.clip(np.random.default_rng(seed).standard_normal(rows), -4, 4)
    values[rows // 2 :] += 200
    values[400:420] = np.nan
    values[[700, 900, 2000]] += 80
    return values


def a_frame(endpoints: tuple[str, ...] = ("a", "b"), rows: int = 3000) -> pd.DataFrame:
    times = START + pd.to_timedelta(np.arange(rows), unit="min")
    parts = [
        pd.DataFrame({"timestamp": times, "endpoint": one, "udp_echo": eventful(rows, ord(one))}) for one in endpoints
    ]
    return pd.concat(parts, ignore_index=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 4000), mean_block=st.sampled_from([1.0, 50.0, 400.0]))
def test_rows_are_quiet_ones_about_the_link_s_level(seed: int, rows: int, mean_block: float) -> None:
    values = eventful()
    quiet = quiet_rows(values)
    made = stationary_bootstrap(values, quiet, rows, mean_block, np.random.default_rng(seed))
    assert made.shape == (rows,)
    assert np.isfinite(made).all()
    level = np.median(values[quiet])
    assert np.abs(made - level).max() < 150, "neither the lower level nor a spike is left"


def test_nothing_natural_is_left_where_noise_is_the_same_everywhere() -> None:
    made = clean_backgrounds(a_frame(), "udp_echo", seed=3)
    for _, part in made.groupby("endpoint"):
        assert len(part) == 6000
        assert natural_events(part["udp_echo"]).sustained == ()
        assert (part["timestamp"].diff().dropna() == pd.Timedelta(minutes=1)).all()


def test_neighbours_stay_neighbours() -> None:
    values = np.sin(np.arange(3000) / 3.0) + np.random.default_rng(0).standard_normal(3000) / 100
    made = stationary_bootstrap(values, np.ones(3000, dtype=bool), 3000, 50.0, np.random.default_rng(1))
    original, kept = (np.corrcoef(one[:-1], one[1:])[0, 1] for one in (values, made))
    assert abs(original - kept) < 0.05


def test_a_link_s_series_is_its_own_whatever_stands_beside_it() -> None:
    both, one = clean_backgrounds(a_frame(), "udp_echo", 3), clean_backgrounds(a_frame(("a",)), "udp_echo", 3)
    pd.testing.assert_frame_equal(both[both["endpoint"] == "a"], one)
    assert not one["udp_echo"].equals(clean_backgrounds(a_frame(("a",)), "udp_echo", 4)["udp_echo"])


def test_links_without_quiet_rows_are_left_out_and_none_at_all_is_refused() -> None:
    frame = a_frame()
    frame.loc[(frame["endpoint"] == "b") & (frame.index % 10 == 0), "udp_echo"] += 100
    assert set(clean_backgrounds(frame, "udp_echo", 1)["endpoint"]) == {"a"}
    with pytest.raises(DataError, match="no link has 500 quiet rows of `udp_echo`"):
        clean_backgrounds(frame[frame["endpoint"] == "b"], "udp_echo", 1)
