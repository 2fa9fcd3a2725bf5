"""Bad members and bad labels, each refused before anything is searched; what else training says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.composite.conftest import REFERENCES, Workshop, make_links

from ocad.detection.rule import AlarmRule
from ocad.errors import ConfigError, DataError, OcadError, UsageError
from ocad.pipeline import TrainResult
from ocad_composite.config import CompositeConfig
from ocad_composite.training import plain_rule
from ocad_registry import NotFound

BOTH = ",".join(REFERENCES)


@pytest.mark.parametrize(
    ("members", "kind", "message"),
    [
        ("", UsageError, r"a composite needs members: give references"),
        ("rule_based-udp_echo@9.0.0", NotFound, r"there is no version `rule_based-udp_echo@9\.0\.0`"),
        ("no_such-udp_echo", NotFound, r"no_such-udp_echo"),
        (f"{BOTH},rule_based-udp_echo", UsageError, r"the member `rule_based-udp_echo` is named twice"),
        (
            f"{REFERENCES[1]},composite-udp_echo@1.0.0",
            UsageError,
            r"`composite-udp_echo@1\.0\.0` is a composite itself",
        ),
    ],
)
def test_members_that_cannot_be_are_refused(
    workshop: Workshop, trained: TrainResult, members: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        workshop.train("composite", f"members=[{members}]")


def write(folder: Path, frame: pd.DataFrame) -> Path:
    path = folder / "rows.parquet"
    frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, r"data `.*` has no labels, which decide about weights"),
        (0, r"no row of data `.*` that the composite is optimised on has label 1"),
        (1, r"the train part of data `.*` has no normal row"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    workshop: Workshop, tmp_path: Path, label: int | None, message: str
) -> None:
    links = make_links().drop(columns="label")
    path = write(tmp_path, links if label is None else links.assign(label=label))
    with pytest.raises(DataError, match=message):
        workshop.train_composite(data=path)


def test_labels_outside_of_the_part_that_decides_are_not_enough(workshop: Workshop, tmp_path: Path) -> None:
    links = make_links()
    place = links.groupby("endpoint").cumcount()
    links["label"] = np.where(place < 2_400, links["label"], 0)
    path = write(tmp_path, links)
    with pytest.raises(DataError, match=r"has label 1: give data with labelled incidents; `ocad data inject`"):
        workshop.train_composite(data=path)
    result = workshop.train_composite("optimise_on=[train, validation]", "gates=[]", data=path)
    assert result.version.manifest.metrics["optimised_incidents"] > 10


def test_members_of_another_metric_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    path = write(tmp_path, make_links().assign(lbm=lambda rows: rows["udp_echo"] + 1))
    message = r"member `changepoint-udp_echo@1\.0\.0` was trained on the metric `udp_echo`, not on `lbm`"
    with pytest.raises(UsageError, match=message):
        workshop.train_composite(data=path, metric="lbm")
    with pytest.raises(UsageError, match=message):
        workshop.train_composite("metrics=[lbm]", data=path, metric="anything")
    without = write(tmp_path, make_links().rename(columns={"udp_echo": "lbm"}))
    with pytest.raises(
        UsageError, match=r"has no metric `udp_echo`, which the member `changepoint-udp_echo@1\.0\.0` reads"
    ):
        workshop.train_composite(data=without, metric="anything")


def test_members_of_another_unit_are_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, make_links().rename(columns={"udp_echo": "jitter"}))
    catalogue = tmp_path / "configs" / "data"
    catalogue.mkdir(parents=True)
    for name, unit in (("slow", "ms"), ("fast", "µs")):
        columns = f"columns: {{jitter: {{name: jitter, unit: {unit}}}}}"
        text = f"path: rows.parquet\nendpoint: endpoint\nlabel: label\n{columns}\n"
        (catalogue / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    member = workshop.train("rule_based", data=Path("slow"), metric="jitter").version.ref
    message = r"member `rule_based-jitter@1\.0\.0` was trained on `jitter` in ms, data `fast` has it in µs"
    with pytest.raises(UsageError, match=message):
        workshop.train_composite(members=member, data=Path("fast"), metric="jitter")
    same = workshop.train_composite("gates=[]", members=member, data=Path("slow"), metric="jitter")
    assert same.version.manifest.parents[0].ref == member


def test_a_name_that_is_no_column_stands_for_all_metrics_of_the_members(workshop: Workshop) -> None:
    result = workshop.train_composite("gates=[]", "weights=[]", metric="oran")
    assert result.version.ref == "composite-oran@1.0.0"
    assert result.version.manifest.metric == "oran"


def test_few_incidents_and_rows_fitted_on_are_said(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    workshop.train_composite("gates=[]", "split.train=0.3", "rule.search=false")
    assert any("labelled incidents decide" in message for message in caplog.messages)
    assert any(
        "member `rule_based-udp_echo@1.0.0` was fitted on rows that the composite is optimised on" in message
        for message in caplog.messages
    )


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"weights": (1.0, 2.0, 3.0)}, ConfigError, r"`weights` has 3 values for 2 members"),
        ({"weights": (0.0, 0.0)}, ConfigError, r"`weights` has no weight above 0"),
        ({"weights": (2.0, -1.0)}, UsageError, r"give weights from 0 that add up to 1"),
        ({"hold": {"clear_at": 9.0}}, UsageError, r"off <= on <= instant"),
        ({"hold": {"instant": 7.0}}, UsageError, r"off <= on <= instant"),
        ({"hold": {"k": 3}}, UsageError, r"k=3, n=1"),
    ],
)
def test_a_plain_rule_that_does_not_fit_is_refused(
    settings: dict[str, object], kind: type[OcadError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        plain_rule(CompositeConfig.model_validate(settings), 2)


def test_the_plain_rule_is_the_first_member_alone_or_as_the_settings_say() -> None:
    assert plain_rule(CompositeConfig(), 2) == AlarmRule.plain((1.0, 0.0))
    settings = CompositeConfig.model_validate({"weights": (1.0, 3.0), "hold": {"raise_at": 6.0, "k": 2, "n": 4}})
    rule = plain_rule(settings, 2)
    assert rule.weights == (0.25, 0.75)
    assert (rule.on, rule.instant, rule.off, rule.k, rule.n) == (6.0, 6.0, 4.5, 2, 4)
