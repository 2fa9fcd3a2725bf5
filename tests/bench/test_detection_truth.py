"""The runners' parts: methods see no label and no later row, choices on other sets do not look at the set itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from detection_export import GRACE, judge
from detection_grid import GRID, SHIPPED
from detection_methods import BASELINES, Detected, median_mad, method_named, plugin_method
from detection_sets import Scored, Task
from detection_transfer import choices
from detection_truth import Case, drawn_links, make_case, total
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.config import load_config
from ocad.detection.events import EventCounts, Interval
from ocad.detection.inject import Injection
from ocad.errors import UsageError
from ocad.host import Host

START = pd.Timestamp("2026-01-01", tz="UTC")


def a_frame(rows: int = 1200, endpoints: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    times = START + pd.to_timedelta(np.arange(rows), unit="min")
    parts = []
    for endpoint in endpoints:
        values = 1000 + np.clip(np.random.default_rng(ord(endpoint)).standard_normal(rows), -3, 3)
        parts.append(pd.DataFrame({"timestamp": times, "endpoint": endpoint, "udp_echo": values}))
    return pd.concat(parts, ignore_index=True)


def split(frame: pd.DataFrame, first: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    number = frame.groupby("endpoint").cumcount()
    return frame[number < first].reset_index(drop=True), frame[number >= first].reset_index(drop=True)


def a_case(magnitude: float = 20.0) -> Case:
    frame = a_frame(2400)
    return make_case(frame, frame, "udp_echo", Injection(magnitude=magnitude, prevalence=0.1, seed=3, clean=0.5))


def test_a_case_hides_labels_and_knows_where_the_incidents_are() -> None:
    case = a_case()
    for frame, rows in ((case.train, 2400), (case.test, 2400)):
        assert list(frame.columns) == ["timestamp", "endpoint", "udp_echo"]
        assert len(frame) == rows
    assert case.train["timestamp"].max() < case.test["timestamp"].min()
    for link in case.links:
        np.testing.assert_array_equal(link.values[1200:], case.test["udp_echo"].to_numpy()[link.places])
        assert set(case.test["endpoint"].iloc[link.places]) == {link.endpoint}
        assert len(link.apart) == len(link.incidents) > 0
        for incident in link.incidents:
            assert link.labels[incident.start - 1200 : incident.end - 1200 + 1].all()


def test_perfect_alarms_are_perfect_and_none_find_nothing() -> None:
    case = a_case()
    truth = np.zeros(len(case.test), dtype=bool)
    for link in case.links:
        truth[link.places] = link.labels == 1

    def perfect(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        return Detected(truth.astype(float), truth)

    def silent(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        return Detected(np.zeros(len(test)), np.zeros(len(test), dtype=bool))

    best, none = (total(case.score(method)).metrics() for method in (perfect, silent))
    assert (best.event_precision, best.event_recall, best.point_fpr) == (1.0, 1.0, 0.0)
    assert (none.event_precision, none.event_recall, none.point_fpr) == (0.0, 0.0, 0.0)
    assert total(case.score(median_mad(8.0, 200))).metrics().event_recall > 0.5


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 599), size=st.floats(-1e4, 1e4))
def test_the_rule_never_looks_ahead(cut: int, size: float) -> None:
    train, test = split(a_frame(endpoints=("a",)), 600)
    later = test.copy()
    later.loc[cut:, "udp_echo"] += size
    one, other = (median_mad(8.0, 100)(train, frame, ["udp_echo"]) for frame in (test, later))
    np.testing.assert_array_equal(one.score[:cut], other.score[:cut])
    np.testing.assert_array_equal(one.alarm[:cut], other.alarm[:cut])


def test_the_rule_tells_of_an_outage_and_of_minutes_and_not_of_noise_or_one_lost_row() -> None:
    train, test = split(a_frame(endpoints=("a",)), 600)
    assert not median_mad()(train, test, ["udp_echo"]).alarm.any()
    test.loc[[100], "udp_echo"] = np.nan
    test.loc[200:230, "udp_echo"] = np.nan
    test.loc[300:302, "udp_echo"] += 100
    alarm = median_mad()(train, test, ["udp_echo"]).alarm
    begins = np.flatnonzero(alarm & ~np.concatenate([[False], alarm[:-1]]))
    assert begins.tolist() == [201, 301]


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_scores_far_rows_highest(name: str) -> None:
    train, test = split(a_frame(), 600)
    test.loc[300:330, "udp_echo"] += 200
    found = BASELINES[name]()(train, test, ["udp_echo"])
    assert found.score.shape == found.alarm.shape == (1200,)
    assert found.alarm[300:331].any()
    assert np.median(found.score[300:310]) > np.quantile(np.delete(found.score, range(290, 420)), 0.99)


def test_a_plugin_is_trained_without_a_registry_and_goes_on_from_the_training_rows() -> None:
    train, test = split(a_frame().assign(label=1), 900)
    test.loc[100:140, "udp_echo"] += 300
    found = plugin_method("rule_based")(train, test, ["udp_echo"])
    assert found.alarm[100:140].any()
    assert {incident.endpoint for incident in found.incidents} == {"a"}
    with pytest.raises(UsageError, match="unknown plugin `rule_bsed`"):
        method_named("rule_bsed")(train, test, ["udp_echo"])
    with pytest.raises(UsageError, match="a composite needs members"):
        method_named("composite")(train, test, ["udp_echo"])


def test_links_are_drawn_by_name_and_a_link_more_changes_no_other() -> None:
    frame = a_frame(10, ("a", "b", "c", "d"))
    drawn = drawn_links(frame, 3, 5)
    assert drawn == drawn_links(frame.iloc[::-1], 4, 5)[:3]
    rest = [one for one in drawn_links(frame, 4, 5) if one != "b"]
    assert drawn_links(frame[frame["endpoint"] != "b"], 4, 5) == rest
    assert drawn_links(frame, 3, 11) == []


INCIDENTS = [Interval(100, 199), Interval(400, 402, True)]


@pytest.mark.parametrize(("alarms", "told", "false"), [
    ([], [None, None], 0),
    ([(103, 250), (401, 405)], [3, 1], 0),
    ([(90, 150)], [None, None], 0),  # it stood before: nobody was told
    ([(199 + GRACE, 270)], [None, None], 0),
    ([(200 + GRACE, 270)], [None, None], 1),
    ([(50, 60), (300, 310), (120, 130), (140, 150)], [20, None], 2),
    ([(406, 407)], [None, 6], 0),
])  # fmt: skip
def test_an_operator_is_told_in_time_late_or_in_vain(
    alarms: list[tuple[int, int]], told: list[int | None], false: int
) -> None:
    alarm = np.zeros(600, dtype=bool)
    for start, end in alarms:
        alarm[start : end + 1] = True
    assert judge(alarm, INCIDENTS) == (told, false)


def test_a_set_has_no_say_in_what_is_chosen_for_it() -> None:
    results = {
        "one": {"first": 0.9, "second": 0.1},
        "two": {"first": 0.5, "second": 0.6},
        "three": {"first": 0.5, "second": 0.7},
    }
    assert choices(results) == {"one": "second", "two": "first", "three": "first"}
    for name in results:
        turned = {**results, name: {"first": 0.0, "second": 1.0}}
        assert choices(turned)[name] == choices(results)[name]
    assert choices({"one": {"first": 0.5, "second": 0.5}}) == {"one": "first"}


@pytest.mark.parametrize("plugin", sorted(GRID))
def test_every_setting_of_the_grid_fits_its_plugin_and_the_first_is_what_is_shipped(plugin: str) -> None:
    assert next(iter(GRID[plugin])) == SHIPPED
    assert GRID[plugin][SHIPPED].overrides == ()
    for setting in GRID[plugin].values():
        load_config(Host().plugin(plugin).info.config, None, setting.overrides)
        setting.rule()


def test_a_task_shows_no_label_and_scores_pair_by_group() -> None:
    seen: list[list[str]] = []

    def method(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        seen.extend([list(train.columns), list(test.columns)])
        return Detected(np.zeros(len(test)), np.zeros(len(test), dtype=bool))

    train, test = split(a_frame().assign(label=1, kind="shift"), 600)
    task = Task("made", "nothing", ("udp_echo",), train, test, lambda found: Scored(values=(0.5, 0.7)))
    assert task.score(method).value.value == pytest.approx(0.6)
    assert seen == [["timestamp", "endpoint", "udp_echo"]] * 2
    counts = Scored((EventCounts(found=3, right=3), EventCounts(found=2, right=2, missed=1)))
    assert counts.less(counts).value == 0.0
