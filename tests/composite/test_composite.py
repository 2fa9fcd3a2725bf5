"""The composite as a registered version: its members, its answers, moved aliases, members that are gone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.composite.conftest import MEMBERS, REFERENCES, Workshop, make_links

from ocad.__main__ import run
from ocad.catalogue import find_data
from ocad.errors import DataError, VerificationError
from ocad.pipeline import TrainResult
from ocad.timeseries.frame import read_frame
from ocad.versions import evaluate_version
from ocad_composite.stored import Composite, load


@pytest.fixture
def composite(workshop: Workshop, trained: TrainResult) -> Composite:
    loaded = workshop.session.load(trained.version.ref)
    assert isinstance(loaded, Composite)
    return loaded


@pytest.fixture
def copied(workshop: Workshop, trained: TrainResult, tmp_path: Path) -> Workshop:
    """A registry of the test's own, its files writable."""
    return workshop.copy(tmp_path / "copy")


def frame_of(workshop: Workshop) -> pd.DataFrame:
    return read_frame(find_data(str(workshop.data)), ["udp_echo"]).data


def test_it_passes_and_finds_what_is_labelled(trained: TrainResult) -> None:
    manifest = trained.version.manifest
    assert manifest.passed, manifest.failures()
    assert manifest.metrics["event_precision"] > 0.95
    assert manifest.metrics["event_recall"] > 0.9
    assert manifest.metrics["point_fpr"] < 0.05
    assert {"cv_event_f1", "validation_event_f1", "auc", "false_alarm_rate_1pct"} <= set(manifest.metrics)


def test_it_holds_its_members_by_exact_version_and_digest(workshop: Workshop, trained: TrainResult) -> None:
    registry = workshop.registry
    expected = {reference: registry.resolve(reference).metadata_sha256 for reference in REFERENCES}
    assert {parent.ref: parent.metadata_sha256 for parent in trained.version.manifest.parents} == expected
    stored = json.loads(trained.version.file("estimator").read_text())
    assert {member["ref"]: member["metadata_sha256"] for member in stored["members"]} == expected
    assert sum(stored["rule"]["weights"]) == pytest.approx(1)
    assert stored["units"] == {"udp_echo": "µs"}
    report = json.loads(trained.version.file("report").read_text())
    assert set(report["weights"]) == {f"{plugin}-udp_echo" for plugin in MEMBERS}
    assert report["chosen_on"]["event_precision"] >= 0.9
    assert report["plain_rule_replaced"] == (report["gain_over_plain_rule"]["low"] > 0)
    assert len(report["search"]) == 20


def test_registry_show_lists_the_members(
    workshop: Workshop, trained: TrainResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = str(workshop.folder / "models")
    monkeypatch.setattr(sys, "argv", ["ocad", "registry", "show", trained.version.ref, "--registry", models, "--json"])
    assert run() == 0
    shown = json.loads(capsys.readouterr().out)
    assert [parent["ref"] for parent in shown["parents"]] == REFERENCES
    assert shown["description"] == f"members: {', '.join(REFERENCES)}"


def test_row_by_row_equals_the_frame_and_a_restored_state_goes_on(composite: Composite, workshop: Workshop) -> None:
    frame = frame_of(workshop)
    frame = frame[frame.groupby("endpoint").cumcount() < 1500].reset_index(drop=True)
    whole = composite.detect(frame)
    assert whole.incidents
    composite.forget()
    moments = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    scores, alarms, found = [], [], {}
    for row, (endpoint, moment, value) in enumerate(zip(frame["endpoint"], moments, frame["udp_echo"], strict=True)):
        point = composite.detect_point(endpoint, moment, [value])
        scores.append(point.score)
        alarms.append(point.alarm)
        if point.incident:
            found[point.incident.id] = point.incident
        if row % 701 == 0:
            state = json.loads(json.dumps(composite.state(), allow_nan=False))
            composite.forget()
            composite.restore(state)
    np.testing.assert_allclose(scores, whole.scores, atol=1e-9)
    assert alarms == whole.alarms.tolist()
    assert [(item.id, item.kind, item.rows) for item in found.values()] == [
        (item.id, item.kind, item.rows) for item in sorted(whole.incidents, key=lambda item: item.endpoint)
    ]


def test_incidents_say_what_was_put_in(composite: Composite, workshop: Workshop) -> None:
    found = composite.detect(frame_of(workshop)).incidents
    kinds = {kind: sum(incident.kind == kind for incident in found) for kind in ("spike", "shift", "drift", "loss")}
    assert min(kinds.values()) >= 8, kinds
    shift = next(incident for incident in found if incident.kind == "shift" and incident.endpoint == "north")
    assert shift.deviations["udp_echo"].value == pytest.approx(490, abs=8)
    assert shift.deviations["udp_echo"].normal == pytest.approx(400, abs=4)
    assert shift.deviations["udp_echo"].unit == "µs"
    assert set(shift.detectors) <= {f"{plugin}-udp_echo" for plugin in MEMBERS}


def test_evaluated_again_it_measures_the_same(workshop: Workshop, trained: TrainResult) -> None:
    again = evaluate_version(trained.version, workshop.session, None, None).metrics
    assert again == pytest.approx(dict(trained.version.manifest.metrics), rel=1e-9)


@pytest.mark.parametrize("reference", [*REFERENCES, ""])
def test_all_rows_of_other_data_are_measured(
    workshop: Workshop, trained: TrainResult, tmp_path: Path, reference: str
) -> None:
    make_links(2_000, seed=9).to_parquet(tmp_path / "new.parquet", index=False)
    version = workshop.registry.resolve(reference) if reference else trained.version
    new = evaluate_version(version, workshop.session, str(tmp_path / "new.parquet"), None)
    assert (new.rows.part, new.rows.count, new.rows.own) == ("all", 4_000, True)
    assert new.metrics["event_recall"] > 0.5
    assert "held_out_rows" not in new.metrics
    part = evaluate_version(version, workshop.session, str(tmp_path / "new.parquet"), None, "validation")
    assert (part.rows.part, part.rows.count) == ("validation", 800)


def test_the_same_seed_finds_the_same(workshop: Workshop, trained: TrainResult) -> None:
    first, second = (
        json.loads(result.version.file("estimator").read_text()) for result in (trained, workshop.train_composite())
    )
    assert first == second


def test_a_moved_alias_changes_nothing(copied: Workshop) -> None:
    registry, members = copied.registry, f"{REFERENCES[0]},rule_based-udp_echo@live"
    registry.promote(REFERENCES[1], "live")
    by_alias = copied.train_composite(members=members).version
    assert [parent.ref for parent in by_alias.manifest.parents] == REFERENCES
    frame = frame_of(copied)
    before = copied.session.load(by_alias.ref)
    assert isinstance(before, Composite)
    scores = before.score(frame)

    newer = copied.train("rule_based", "rules.level.sigmas=9.0").version
    registry.promote(newer.ref, "live")
    after = copied.session.load(by_alias.ref)
    assert isinstance(after, Composite)
    assert after.versions["rule_based-udp_echo"].ref == REFERENCES[1]
    np.testing.assert_array_equal(after.score(frame), scores)
    assert copied.train_composite(members=members).version.manifest.parents[1].ref == newer.ref


def test_an_endpoint_never_seen_is_scored_and_flagged(composite: Composite, caplog: pytest.LogCaptureFixture) -> None:
    links = make_links(rows=800, seed=9).replace({"endpoint": {"south": "west"}})
    found = composite.detect(links.reset_index(drop=True))
    assert composite.unseen == {"west"}
    assert found.counts["unseen"] == 1
    assert np.isfinite(found.scores).all()
    assert any("endpoint `west` was never seen" in message for message in caplog.messages)


def folder_of(workshop: Workshop, reference: str) -> Path:
    return workshop.folder / "models" / reference.replace("@", "/")


def test_a_member_that_is_gone_is_named(trained: TrainResult, copied: Workshop) -> None:
    shutil.rmtree(folder_of(copied, REFERENCES[0]))
    with pytest.raises(
        VerificationError, match=r"`changepoint-udp_echo@1\.0\.0` of `composite-udp_echo@1\.0\.0` cannot"
    ):
        copied.session.load(trained.version.ref)


def test_a_damaged_member_is_named(trained: TrainResult, copied: Workshop) -> None:
    path = folder_of(copied, REFERENCES[0]) / "detector.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(VerificationError, match=r"member `changepoint-udp_echo@1\.0\.0` .* cannot be read"):
        copied.session.load(trained.version.ref)


def test_a_member_that_is_another_is_refused(trained: TrainResult, copied: Workshop, tmp_path: Path) -> None:
    other = Workshop(tmp_path / "other")
    other.train("changepoint", "seed=8")
    shutil.rmtree(folder_of(copied, REFERENCES[0]))
    shutil.copytree(folder_of(other, REFERENCES[0]), folder_of(copied, REFERENCES[0]))
    with pytest.raises(VerificationError, match="is not the one it was trained with"):
        copied.session.load(trained.version.ref)


def test_a_file_that_is_no_composite_is_refused(copied: Workshop) -> None:
    member = copied.registry.resolve(REFERENCES[1])
    with pytest.raises(DataError, match=r"`rule_based-udp_echo@1\.0\.0` does not hold a composite"):
        load(copied.session.host_context(), member)
