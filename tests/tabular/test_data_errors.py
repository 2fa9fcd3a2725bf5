"""Damaged and unfit logs: each says what is wrong, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.tabular.conftest import FEATURES, Prepare, log_frame

from ocad.catalogue import find_data
from ocad.errors import DataError, OcadError, UsageError
from ocad.tabular.prepare import load_encoder
from ocad.tabular.spec import Categorical, Features, Join, Label, Numeric, Split, Temporal

SITE = Features(categorical=(Categorical(column="site"),))
AGE = Features(numeric=(Numeric(column="age"),))


def complaint(call: Callable[[], object], kind: type[OcadError] = DataError) -> str:
    """What `call` complains of, with the folders of paths and the log's number left out."""
    with pytest.raises(kind) as caught:
        call()
    return re.sub(r"/[^ `]*/", "", str(caught.value))


def test_no_label_column(prepared: Prepare) -> None:
    frame = log_frame().rename(columns={"label": "labels"})
    said = complaint(lambda: prepared(frame))
    assert said == "data `log1.parquet` has no label column `label`: did you mean `labels`?"


@pytest.mark.parametrize(
    ("value", "label", "message"),
    [
        (np.nan, Label(), "label `label` is missing in row 300: remove the row"),
        (2, Label(), "label `label` is 2 in row 300, not 0 or 1: set `label.at_least`"),
        (np.inf, Label(at_least=1), "column `label` is infinite in row 300: write a missing value as NaN"),
    ],
)
def test_a_label_that_is_none(prepared: Prepare, value: float, label: Label, message: str) -> None:
    frame = log_frame().astype({"label": "float64"})
    frame.loc[300, "label"] = value
    assert complaint(lambda: prepared(frame, SITE.model_copy(update={"label": label}))) == message


def test_a_text_label_needs_its_positive_value(prepared: Prepare) -> None:
    frame = log_frame().assign(label=lambda rows: rows["label"].map({0: "no", 1: "yes"}))
    said = complaint(lambda: prepared(frame, SITE))
    assert said.startswith("label `label` is `")
    assert said.endswith("` in row 0, not 0 or 1: name the click as `label.positive`")
    data = prepared(frame, SITE.model_copy(update={"label": Label(positive="yes")}))
    assert data.statistics["click_rate"]["train"] == pytest.approx(0.3, abs=0.1)


def test_a_label_of_one_class_or_a_part_without_rows(prepared: Prepare) -> None:
    said = complaint(lambda: prepared(log_frame().assign(label=0), SITE))
    assert said == "label `label` is 0 in every train row: both 0 and 1 are needed; give more rows"
    said = complaint(lambda: prepared(log_frame(), SITE, Split(validation=0)))
    expected = "data `log2.parquet` has no validation rows: raise `split.validation`, or give `data.validation` a file"
    assert said == expected


@pytest.mark.parametrize(
    ("features", "place", "hint"),
    [
        (Features(categorical=(Categorical(column="sites"),)), "features.categorical", "did you mean `site`?"),
        (Features(numeric=(Numeric(column="ages"),)), "features.numeric", "did you mean `age`?"),
        (Features(temporal=(Temporal(column="times"),)), "features.temporal", "did you mean `time`?"),
        (Features(auto=True, drop=("bids",)), "features.drop", "did you mean `bid`?"),
        (Features(auto=True, group="users"), "features.group", "did you mean `user`?"),
    ],
)
def test_a_configuration_that_names_an_absent_column(
    prepared: Prepare, features: Features, place: str, hint: str
) -> None:
    said = complaint(lambda: prepared(log_frame(), features))
    assert re.fullmatch(rf"`{place}` names the column `\w+`, which data `log1.parquet` does not have: (.*)", said)
    assert said.endswith(hint)


def test_columns_that_are_of_no_use(prepared: Prepare) -> None:
    frame = log_frame().assign(age=np.nan, site=None)
    empty = "has no value in the training rows: leave it out"
    assert complaint(lambda: prepared(frame, AGE)) == f"column `age` {empty}"
    assert complaint(lambda: prepared(frame, SITE)) == f"column `site` {empty}"
    said = complaint(lambda: prepared(log_frame(), Features()))
    assert said == "no feature of data `log3.parquet` is named: name some, or set `features.auto=true`"


def test_columns_of_the_wrong_kind(prepared: Prepare) -> None:
    said = complaint(lambda: prepared(log_frame(), Features(categorical=(Categorical(column="bid"),))))
    assert said == ("column `bid` is neither text nor whole numbers (double): list it under `numeric`, or leave it out")
    said = complaint(lambda: prepared(log_frame(), Features(numeric=(Numeric(column="site"),))))
    assert said.startswith("column `site` does not hold numbers (")
    said = complaint(lambda: prepared(log_frame().assign(time=None), Features(temporal=(Temporal(column="time"),))))
    assert said.startswith("column `time` does not hold times (")
    said = complaint(
        lambda: prepared(log_frame().assign(time="yesterday"), Features(temporal=(Temporal(column="time"),)))
    )
    assert said == "column `time` holds `yesterday` in row 0, not a time: write times as ISO 8601"
    frame = log_frame().astype({"time": "float64"})
    frame.loc[17, "time"] = np.nan
    said = complaint(lambda: prepared(frame, Features(temporal=(Temporal(column="time"),))))
    assert said == "column `time` has no time in row 17: remove the row"


def test_nan_is_a_missing_number_and_infinity_an_error(prepared: Prepare) -> None:
    frame = log_frame()
    data = prepared(frame, AGE)
    assert data.statistics["missing"]["age"] == pytest.approx(0.8 * frame["age"].isna().sum(), abs=12)
    frame.loc[211, "age"] = np.inf
    said = complaint(lambda: prepared(frame, AGE))
    assert said == "column `age` is infinite in row 211: write a missing value as NaN"


def test_weights_and_prices_are_numbers_from_zero(prepared: Prepare) -> None:
    frame = log_frame().assign(weight=1.0)
    frame.loc[5, "weight"] = -1
    said = complaint(lambda: prepared(frame, SITE.model_copy(update={"weight": "weight"})))
    assert said == "weight `weight` is missing or negative in row 5: correct it"


def test_categories_that_training_never_had_are_rare_and_counted(prepared: Prepare) -> None:
    data = prepared(log_frame(), SITE)
    encoder = load_encoder(data.splits["train"].parent)
    encoded = encoder.transform(pd.DataFrame({"site": ["news", "a new one", "another", None]}))
    assert encoder.unseen == {"site": 2}  # the missing one is missing, not new
    assert encoded.ids[:, 0].tolist()[1:] == [0, 0, 0]
    said = complaint(lambda: encoder.transform(pd.DataFrame({"sites": ["news"]})))
    assert said == "the rows have no column `site`: did you mean `sites`?"


def test_text_where_training_had_whole_numbers(prepared: Prepare) -> None:
    data = prepared(log_frame(), Features(categorical=(Categorical(column="user"),)))
    encoder = load_encoder(data.splits["train"].parent)
    numbers, texts = (encoder.transform(pd.DataFrame({"user": values})).ids for values in ([3, 4], ["3", "4"]))
    np.testing.assert_array_equal(numbers, texts)
    odd = encoder.transform(pd.DataFrame({"user": ["anna", "3", "3.5"]}))
    assert odd.ids[:, 0].tolist() == [0, numbers[0, 0], 0]
    assert encoder.unseen["user"] == 2


def test_a_truncated_parquet_file(prepared: Prepare, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    log_frame().to_parquet(whole, index=False)
    cut.write_bytes(whole.read_bytes()[:-100])
    assert complaint(lambda: prepared(cut)).startswith("cannot read `cut.parquet` (")
    cut.write_bytes(b"")
    assert complaint(lambda: prepared(cut)) == "data `cut.parquet` is empty: `cut.parquet` has 0 bytes: write it again"
    cut.unlink()
    said = complaint(lambda: prepared(cut))
    assert said == "data `cut.parquet` is not here: there is no file `cut.parquet`: check the path"


def test_a_file_that_lacks_a_column_of_the_log(prepared: Prepare, tmp_path: Path) -> None:
    log_frame().drop(columns="site").to_parquet(tmp_path / "test.parquet")
    said = complaint(lambda: prepared(log_frame(), SITE, data={"test": tmp_path / "test.parquet"}))
    assert said.startswith("`test.parquet` has no column `site`: ")


def test_splits_that_cannot_be_made(prepared: Prepare) -> None:
    said = complaint(lambda: prepared(log_frame(), SITE, Split(kind="time")), UsageError)
    assert said == "`split.kind=time` needs a column: name it as `split.column` or `features.time`"
    said = complaint(lambda: prepared(log_frame(), SITE, Split(kind="given")))
    assert said.endswith("no part is given: name `split.column`, `data.validation` or `data.test`")
    said = complaint(lambda: prepared(log_frame(), SITE, Split(kind="given", column="user")))
    assert re.fullmatch(r"column `user` holds `\d+` in row 0: write `train`, `validation` or `test`", said)


def test_joins_and_shares_that_do_not_fit(prepared: Prepare) -> None:
    what = SITE.model_copy(update={"joins": (Join(file="items", on="site"),)})
    assert complaint(lambda: prepared(log_frame(), what)) == (
        "data `log1.parquet` has no file `items` to join: none is known here"
    )
    shared = Features(
        categorical=(Categorical(column="site", share="user"), Categorical(column="users_of", share="site"))
    )
    assert complaint(lambda: prepared(log_frame().assign(users_of="x"), shared)).startswith(
        "`site` shares the vocabulary of `user`, which is not categorical: "
    )


def test_columns_that_may_not_be_named_so(prepared: Prepare) -> None:
    twice = Features(categorical=(Categorical(column="site"), Categorical(column="site", min_count=2)))
    assert complaint(lambda: prepared(log_frame(), twice)) == "the column `site` is named twice: name it once"
    leak = Features(numeric=(Numeric(column="label"),))
    assert complaint(lambda: prepared(log_frame(), leak)) == (
        "the column `label` is what is predicted, not a feature: leave it out of the features"
    )


def test_a_log_without_rows(prepared: Prepare) -> None:
    assert complaint(lambda: prepared(log_frame().iloc[:0])) == "data `log1.parquet` has no rows: write it again"
    said = complaint(lambda: prepared(log_frame(), SITE, Split(kind="time", column="label")))
    assert said == "label `label` is 0 in every train row: both 0 and 1 are needed; give more rows"


def test_a_name_that_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean `clicks_simulated`\?"):
        find_data("click_simulated")
    assert FEATURES.group == "user"
    assert find_data(str(tmp_path / "log.yzx")).missing() == f"there is no file `{tmp_path / 'log.yzx'}`"
