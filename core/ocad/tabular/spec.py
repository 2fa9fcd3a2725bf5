"""The feature specification of a click log: which column is what, and which rows train, validate and test.

A field of a configuration that names a column is checked against the data by `resolve`, which also fills in `auto`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ocad.catalogue import PANDAS_INDEX, known_zone
from ocad.config import Settings
from ocad.errors import DataError, nearest
from ocad.times import Clock, known_format

if TYPE_CHECKING:
    import pyarrow as pa

    from ocad.catalogue import DataSource

AFTERMATH = ("true_probability", "conversion", "revenue", "paid_price")
"""What the simulator writes beside the features: known only to it, or only after the click, so `auto` leaves it out."""

QUERY = "qid"
"""The query that a line of a libsvm file for ranking belongs to."""
TIMES = "times; list it under `features.temporal`"


class Label(Settings):
    """The click: 0 or 1 as it stands, or made so by `positive` or `at_least`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    column: str | None = None
    """None: the label that the data's catalogue entry names, else `label`."""
    at_least: float | None = None
    """A click is a value of at least this: MovieLens' `rating >= 4`."""
    positive: str | None = None
    """A click is a value that equals this text: `yes`."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.at_least is not None and self.positive is not None:
            raise ValueError("`at_least` and `positive` both say what a click is; leave one of the two out")
        return self


class Categorical(Settings):
    """A column of text or whole numbers; each value gets a row of the embedding table."""

    column: str
    min_count: int = Field(default=1, ge=1)
    """Values that fewer training rows have share the rare row with values that none has."""
    max_values: int = Field(default=10_000, ge=1)
    """With more values than this (after `min_count`) they are hashed into `buckets`."""
    buckets: int = Field(default=10_000, ge=2)
    share: str | None = None
    """Another categorical column whose vocabulary and embedding this one uses."""
    embedding: int | Literal["auto"] | None = None
    """None: the model's size; `auto`: min(50, int(vocabulary ** 0.25))."""
    separator: str = ""
    """Text that parts several values in one cell, as `|` in `Comedy|Drama`."""
    slots: int = Field(default=1, ge=1)
    """With `separator`: how many of a cell's values are kept, each a field of its own that shares the vocabulary."""

    @model_validator(mode="after")
    def _slots_need_a_separator(self) -> Self:
        if self.slots > 1 and not self.separator:
            raise ValueError(f"`{self.column}` has several slots but no `separator`")
        return self


class Numeric(Settings):
    """A column of numbers; a missing one becomes the training mean."""

    column: str
    transform: Literal["standard", "log", "quantile", "none"] = "standard"
    """`standard`: mean 0, deviation 1; `log`: sign(x)·log(1+|x|) first; `quantile`: to a uniform distribution first."""
    indicator: bool = False
    """Adds the number 1 where the value is missing, else 0, as `NAME_missing`."""


class Temporal(Settings):
    """A column of times (UTC) and what is made of them.

    `hour` and `weekday` (Monday = 0) are categorical. `recency` is log(1 + days before the newest training row), 0 after
    it. `historical_ctr` is the smoothed click rate, at the row's hour of the day, of training rows in earlier hours.
    """

    column: str
    parts: tuple[Literal["hour", "weekday", "recency", "historical_ctr"], ...] = ("hour", "weekday")
    unit: Literal["s", "ms", "us", "ns"] = "s"
    """Of times given as numbers, counted from 1970."""
    smoothing: float = Field(default=100.0, gt=0)
    """How many rows of the overall past rate the historical rate starts from."""
    time_zone: str | None = None
    """Of times without a zone; None: the source's, else UTC."""
    time_format: str | None = None
    """Of times that are not ISO 8601, as for `strptime`; None: the source's."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        return zone and known_zone(zone)

    @field_validator("time_format")
    @classmethod
    def _known_format(cls, text: str | None) -> str | None:
        return text and known_format(text)

    def clock(self) -> Clock:
        """A reader of its times."""
        return Clock(self.unit, self.time_zone, self.time_format)


class Join(Settings):
    """Columns of another file of the data set, found by a key: `movies` on `movieId`."""

    file: str
    on: str
    columns: tuple[str, ...] = ()
    """Empty: every column but the key."""


class Features(Settings):
    """What each column of a click log is; a column that is not named is not used, unless `auto`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    label: Label = Label()
    categorical: tuple[Categorical, ...] = ()
    numeric: tuple[Numeric, ...] = ()
    temporal: tuple[Temporal, ...] = ()
    text: tuple[str, ...] = ()
    """Columns whose values are text, whatever they look like: postal codes, ids."""
    drop: tuple[str, ...] = ()
    """Columns that `auto` must not use, such as one that leaks the label."""
    auto: bool = False
    """Text and whole numbers that nothing else names become categorical, fractions numeric; what is not used is named."""
    joins: tuple[Join, ...] = ()
    group: str | None = None
    """Whose rows are ranked together (GAUC, NDCG): usually the user."""
    weight: str | None = None
    """How much each row counts."""
    price: str | None = None
    """What the shown advert cost; for business metrics, never a feature."""
    time: str | None = None
    """The time of the row, for `split.kind: time`."""
    truth: str | None = None
    """The known probability of a simulated log; measured against, never a feature."""


def _with_auto(written: object) -> object:
    """`auto` stays on where what is written names no feature: `drop` and `label` alone say nothing against the others."""
    if isinstance(written, Mapping) and not {"auto", "categorical", "numeric", "temporal"} & written.keys():
        return {**written, "auto": True}
    return written


AutoFeatures = Annotated[Features, BeforeValidator(_with_auto)]
"""The features of a configuration: every column by its type, unless some are named."""


class Split(Settings):
    """Which rows train, validate and test. A file given for a part (`data.test`) is that part; the rest is divided."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Literal["given", "random", "time", "group"] = "random"
    """`given` by a column or by files; `random`; the newest rows by `time`; whole `group`s."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """The share of the rows."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """The share of the rows."""
    column: str | None = None
    """`given`: holds `train`, `validation`, `test`; `time` and `group`: the column, else `features.time` or `.group`."""

    @model_validator(mode="after")
    def _training_rows_remain(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("`validation` and `test` leave no training rows")
        return self


class DataSettings(Settings):
    """Further files of the data, and how much damage a text file may have."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    validation: Path | None = None
    """A file of validation rows."""
    test: Path | None = None
    """A file of test rows."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Lines of a text log that may fail to parse; they are left out and counted."""


@dataclass(frozen=True)
class Resolved:
    """A specification with label and `auto` filled in."""

    features: Features
    automatic: frozenset[str] = frozenset()
    """Columns that `auto` has chosen; one without a value in the training rows is left out again."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """Column → why `auto` does not use it."""


def resolve(features: Features, split: Split, schema: pa.Schema, source: DataSource) -> Resolved:
    """`features` with label and `auto` filled in; raises `DataError` naming the nearest column for an unknown one."""
    label = features.label.column or source.label or "label"
    features = features.model_copy(update={"label": features.label.model_copy(update={"column": label})})
    if label not in schema.names:
        raise DataError(f"data `{source.name}` has no label column `{label}`", nearest(label, schema.names))
    for place, column in _named(features, split):
        if column not in schema.names:
            raise DataError(
                f"`{place}` names the column `{column}`, which data `{source.name}` does not have",
                nearest(column, schema.names),
            )
    _check_shares(features)
    _check_twice(features, label)
    named = {column for _, column in _named(features, split, dropped=False)}
    features = features.model_copy(update={"temporal": tuple(_timed(item, source) for item in features.temporal)})
    unused: dict[str, str] = {}
    if features.auto:
        features, unused = _with_automatic(features, split, schema, source)
    if not (features.categorical or features.numeric or features.temporal):
        raise DataError(f"no feature of data `{source.name}` is named", "name some, or set `features.auto=true`")
    chosen = {item.column for item in features.categorical} | {item.column for item in features.numeric}
    chosen -= named
    return Resolved(features, frozenset(chosen), unused)


def without(features: Features, columns: Iterable[str]) -> Features:
    """`features` less the categorical and numeric `columns`."""
    gone = set(columns)
    return features.model_copy(
        update={
            "categorical": tuple(item for item in features.categorical if item.column not in gone),
            "numeric": tuple(item for item in features.numeric if item.column not in gone),
        }
    )


def _timed(item: Temporal, source: DataSource) -> Temporal:
    """A temporal column with the source's zone and format where it has none of its own."""
    zone, written = item.time_zone or source.time_zone, item.time_format or source.time_format
    return item.model_copy(update={"time_zone": zone, "time_format": written})


def used_columns(features: Features, split: Split) -> list[str]:
    """Every column that a resolved specification reads, each once."""
    assert features.label.column
    return list(dict.fromkeys([features.label.column, *(column for place, column in _named(features, split, False))]))


def split_column(features: Features, split: Split) -> str | None:
    """The column that decides a row's part, if one does."""
    return split.column or {"time": features.time, "group": features.group}.get(split.kind)


def _named(features: Features, split: Split, dropped: bool = True) -> list[tuple[str, str]]:
    """Where a column is named, and its name."""
    parts = {
        "categorical": [item.column for item in features.categorical],
        "numeric": [item.column for item in features.numeric],
        "temporal": [item.column for item in features.temporal],
        "drop": features.drop if dropped else (),
        "text": features.text if dropped else (),
    }
    named = [(f"features.{part}", column) for part, columns in parts.items() for column in columns]
    single = ("group", "weight", "price", "time", "truth")
    named += [(f"features.{role}", getattr(features, role)) for role in single if getattr(features, role)]
    return [*named, ("split.column", split.column)] if split.column else named


def _check_shares(features: Features) -> None:
    columns = {item.column: item for item in features.categorical}
    for item in features.categorical:
        if item.share is None:
            continue
        if item.share not in columns:
            raise DataError(
                f"`{item.column}` shares the vocabulary of `{item.share}`, which is not categorical",
                nearest(item.share, columns),
            )
        if columns[item.share].share:
            raise DataError(
                f"`{item.column}` shares the vocabulary of `{item.share}`, which has none of its own",
                "share that of a column without `share`",
            )


def _check_twice(features: Features, label: str) -> None:
    """Raises `DataError` for a column that is named twice for the same use, and for a label among the features."""
    for items in (features.categorical, features.numeric, features.temporal):
        columns = [item.column for item in items]
        twice = next((column for column in columns if columns.count(column) > 1), None)
        if twice:
            raise DataError(f"the column `{twice}` is named twice", "name it once")
        if label in columns or features.truth in columns:
            known = label if label in columns else features.truth
            raise DataError(f"the column `{known}` is what is predicted, not a feature", "leave it out of the features")


def _with_automatic(
    features: Features, split: Split, schema: pa.Schema, source: DataSource
) -> tuple[Features, dict[str, str]]:
    """Every column that nothing names, by its type; the source's time becomes hour and weekday. And why others are not used."""
    from ocad.tabular.kinds import fitted_kinds, why_unused

    group = "features.group"  # whose rows they are is a feature as well
    taken = {features.label.column}
    taken |= {column for place, column in _named(features, split) if place not in (group, "features.text")}
    unused = {name: "known only after the click, or to the simulator" for name in AFTERMATH if name in schema.names}
    if QUERY in schema.names:
        unused[QUERY] = "names the query; give it as `features.group`"
    taken |= {features.group} & {QUERY}  # of a group only a query says nothing of its rows
    unused = {name: reason for name, reason in unused.items() if name not in taken}
    times = [name for name in schema.names if name == source.timestamp and name not in {*taken, PANDAS_INDEX}]
    free = [field for field in schema if field.name not in {*taken, *unused, *times}]
    unused |= {
        field.name: reason for field in free if field.name not in features.text and (reason := why_unused(field))
    }
    kinds = fitted_kinds(features, schema, [field.name for field in free if field.name not in unused], source.kinds)
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    unused |= dict.fromkeys((name for name, kind in kinds.items() if kind == "time"), TIMES)
    words = [name for name in kinds if name not in numbers and name not in unused]
    temporal = [_timed(Temporal(column=name, unit=source.time_unit or "s"), source) for name in times]
    update = {
        "categorical": (*features.categorical, *(Categorical(column=name) for name in words)),
        "numeric": (*features.numeric, *(Numeric(column=name) for name in numbers)),
        "temporal": (*features.temporal, *temporal),
    }
    return features.model_copy(update=update), unused
