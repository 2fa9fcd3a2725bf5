"""The encoder: rows of a log to ids of one fused embedding table and float32 numbers, as fitted on training rows alone.

`preprocess.json` and `vocab.json` hold all of it; they travel with the version, so that serving cannot drift from training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ocad.catalogue import Kind
from ocad.errors import DataError
from ocad.runs import write_json
from ocad.tabular.columns import (
    Odd,
    Rows,
    as_table,
    column_of,
    numbers,
    seconds,
    try_categories,
    try_numbers,
    try_seconds,
)
from ocad.tabular.scalers import Scaler
from ocad.tabular.spec import Categorical, Features, Temporal
from ocad.tabular.temporal import HourlyRates, hour_of, recency, weekday_of
from ocad.tabular.vocabulary import RARE, Vocabulary

Times = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Seconds since 1970, and which of them are known."""
PREPROCESS_FILE, VOCABULARY_FILE = "preprocess.json", "vocab.json"
FORMAT = 1


@dataclass(frozen=True)
class Field:
    """One categorical input of a model: a column, a slot of a column, or the hour or weekday of a time."""

    name: str
    column: str
    group: str
    """The vocabulary, and with it the rows of the fused table, that this field shares with others of the same group."""
    offset: int
    size: int
    """Rows of the group, the rare one (the first) included."""
    embedding: int | None
    """None: the model's size."""
    slot: int | None = None
    part: str | None = None
    """`hour` or `weekday` of a time column."""


@dataclass(frozen=True)
class Encoded:
    """`ids` (n, fields) int64 into the fused table; `numerics` (n, m) float32, scaled."""

    ids: NDArray[np.int64]
    numerics: NDArray[np.float32]


@dataclass(frozen=True)
class TimeColumn:
    """What training knows of a time column."""

    newest: int
    rates: HourlyRates | None

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {"newest": self.newest, "rates": self.rates.to_json() if self.rates else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TimeColumn:
        """What `to_json` wrote."""
        return cls(value["newest"], HourlyRates.from_json(value["rates"]) if value["rates"] else None)


class Encoder:
    """Made by `fitting.fit_encoder`; `transform` turns rows into ids and numbers and counts unseen categories."""

    def __init__(
        self,
        features: Features,
        vocabularies: Mapping[str, Vocabulary],
        scalers: Mapping[str, Scaler],
        times: Mapping[str, TimeColumn],
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:
        self.features = features
        self.kinds: dict[str, Kind] = {**_derived_kinds(features, vocabularies), **(kinds or {})}
        """How each column is read, whatever file it stands in."""
        self.vocabularies = _placed(vocabularies)
        self.scalers = dict(scalers)
        self.times = dict(times)
        self.fields: tuple[Field, ...] = tuple(self._make_fields())
        self.numerics: tuple[str, ...] = tuple(self._numeric_names())
        self.unseen: dict[str, int] = dict.fromkeys((field.name for field in self.fields), 0)
        """Rows per field whose value training never had (or had too rarely), since this was last emptied."""
        self.odd: dict[str, int] = {}
        """Rows per column of numbers or times that holds something else, read as missing."""

    @property
    def table_rows(self) -> int:
        """Rows of the fused embedding table."""
        return sum(vocabulary.size for vocabulary in self.vocabularies.values())

    @property
    def columns(self) -> list[str]:
        """The raw columns that `transform` needs, each once."""
        categorical = [item.column for item in self.features.categorical]
        numeric = [item.column for item in self.features.numeric]
        return list(dict.fromkeys([*categorical, *numeric, *(item.column for item in self.features.temporal)]))

    def transform(self, rows: pa.Table | pd.DataFrame, numbered: Rows = 0, *, strict: bool = False) -> Encoded:
        """`rows` encoded; raises `DataError` naming a column that is absent, or of a type that cannot be its kind.

        A value that is none of its column's kind counts as rare, or as missing where numbers and times belong; `unseen` and
        `odd` count them. `strict` refuses such numbers and times, with the row: `numbered` holds the rows' numbers in their
        file, or the first's.
        """
        table = as_table(rows)
        times = {item.column: self._seconds(item, table, numbered, strict) for item in self.features.temporal}
        ids = np.empty((len(table), len(self.fields)), np.int64)
        cells = self._cells(table)
        for position, field in enumerate(self.fields):
            if field.part:
                moment, known = times[field.column]
                part = hour_of(moment) if field.part == "hour" else weekday_of(moment)
                ids[:, position] = np.where(known, 1 + part, RARE)
            else:
                ids[:, position] = self._codes(field, *cells[field.name])
        ids += np.asarray([field.offset for field in self.fields], np.int64)
        return Encoded(ids, self._numbers(table, times, numbered, strict))

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs, in plain JSON values."""
        return {
            "format": FORMAT,
            "features": self.features.model_dump(mode="json"),
            "table_rows": self.table_rows,
            "fields": [dataclasses.asdict(field) for field in self.fields],
            "numerics": list(self.numerics),
            "scalers": {name: scaler.to_json() for name, scaler in self.scalers.items()},
            "times": {name: time.to_json() for name, time in self.times.items()},
            "kinds": dict(sorted(self.kinds.items())),
            "vocabularies": {name: vocabulary.to_json() for name, vocabulary in self.vocabularies.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Encoder:
        """The encoder that `to_json` wrote; raises `DataError` for another format."""
        if value.get("format") != FORMAT:
            raise DataError(
                f"the encoder has format {value.get('format')!r}, this is {FORMAT}", "prepare the data again"
            )
        return cls(
            Features.model_validate(value["features"]),
            {name: Vocabulary.from_json(entry) for name, entry in value["vocabularies"].items()},
            {name: Scaler.from_json(entry) for name, entry in value["scalers"].items()},
            {name: TimeColumn.from_json(entry) for name, entry in value["times"].items()},
            value.get("kinds"),
        )

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Writes `preprocess.json` and `vocab.json` (the vocabularies' values) and returns their paths."""
        value = self.to_json()
        vocabularies = {name: entry.pop("values") for name, entry in value["vocabularies"].items()}
        paths = folder / PREPROCESS_FILE, folder / VOCABULARY_FILE
        write_json(paths[0], value)
        write_json(paths[1], vocabularies)
        return paths

    @classmethod
    def load(cls, preprocess: Path, vocabulary: Path) -> Encoder:
        """The encoder of the two files that `save` wrote; raises `DataError` naming one that cannot be read."""
        value, values = _read(preprocess), _read(vocabulary)
        try:
            for name, entry in value["vocabularies"].items():
                entry["values"] = values[name]
            return cls.from_json(value)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"`{preprocess}` and `{vocabulary}` are no encoder", "prepare the data again") from None

    def _make_fields(self) -> list[Field]:
        fields = []
        for item in self.features.categorical:
            group = item.share or item.column
            size = self.vocabularies[group].size
            about = (item.column, group, self.vocabularies[group].offset, size, _embedding(item, size))
            slots = range(item.slots) if item.separator else ()
            fields += [Field(f"{item.column}_{slot + 1}", *about, slot=slot) for slot in slots]
            fields += [] if item.separator else [Field(item.column, *about)]
        for time in self.features.temporal:
            for part in time.parts:
                name = f"{time.column}_{part}"
                if name in self.vocabularies:
                    vocabulary = self.vocabularies[name]
                    fields.append(Field(name, time.column, name, vocabulary.offset, vocabulary.size, None, part=part))
        return fields

    def _numeric_names(self) -> list[str]:
        names = []
        for item in self.features.numeric:
            names += [item.column, f"{item.column}_missing"] if item.indicator else [item.column]
        parts = [f"{time.column}_{part}" for time in self.features.temporal for part in time.parts]
        return [*names, *(name for name in parts if name in self.scalers)]

    def _cells(self, table: pa.Table) -> dict[str, tuple[pa.Array, Odd]]:
        """The values of each field that is no part of a time, and which are odd."""
        cells = {}
        for item in self.features.categorical:
            column = column_of(table, item.column)
            for slot, values in enumerate(split_slots(column, item)):
                name = f"{item.column}_{slot + 1}" if item.separator else item.column
                cells[name] = try_categories(values, item.column, self.kinds[item.column])
        return cells

    def _codes(self, field: Field, values: pa.Array, odd: Odd) -> NDArray[np.int64]:
        vocabulary = self.vocabularies[field.group]
        codes = vocabulary.codes(values)
        codes[odd] = RARE
        absent = 0 if vocabulary.has_missing else values.null_count - int(odd.sum())
        self.unseen[field.name] += int((codes == RARE).sum()) - absent
        return codes

    def _seconds(self, item: Temporal, table: pa.Table, numbered: Rows, strict: bool) -> Times:
        column = column_of(table, item.column)
        if strict:
            return seconds(column, item.column, item.clock(), numbered), np.ones(len(column), bool)
        moments, reasons = try_seconds(column, item.column, item.clock())
        known = np.ones(len(column), bool)
        known[list(reasons)] = False
        self._count_odd(item.column, len(reasons))
        return moments, known

    def _count_odd(self, name: str, count: int) -> None:
        if count:
            self.odd[name] = self.odd.get(name, 0) + count

    def _numbers(
        self, table: pa.Table, times: Mapping[str, Times], numbered: Rows, strict: bool
    ) -> NDArray[np.float32]:
        columns: list[NDArray[np.float32]] = []
        for item in self.features.numeric:
            if strict:
                raw = numbers(column_of(table, item.column), item.column, numbered)
            else:
                raw, odd = try_numbers(column_of(table, item.column), item.column)
                self._count_odd(item.column, int(odd.sum()))
            columns.append(self.scalers[item.column].apply(raw))
            if item.indicator:
                columns.append(np.isnan(raw).astype(np.float32))
        for temporal in self.features.temporal:
            for part in temporal.parts:
                name = f"{temporal.column}_{part}"
                if name in self.scalers:
                    moment, known = times[temporal.column]
                    values = time_number(part, moment, self.times[temporal.column])
                    columns.append(self.scalers[name].apply(np.where(known, values, np.float32(np.nan))))
        return np.stack(columns, axis=1) if columns else np.empty((len(table), 0), np.float32)


def split_slots(column: pa.Array, item: Categorical) -> list[pa.Array]:
    """One column for each slot of `item`; a cell with fewer values misses the rest."""
    if not item.separator:
        return [column]
    lists = pc.split_pattern(column.cast(pa.string()), item.separator)
    padded = pc.list_slice(lists, 0, item.slots, return_fixed_size_list=True)
    return [pc.list_element(padded, slot) for slot in range(item.slots)]


def time_number(part: str, times: NDArray[np.int64], known: TimeColumn) -> NDArray[np.float32]:
    """The unscaled `recency` or `historical_ctr` of `times`."""
    if part == "recency":
        return recency(times, known.newest)
    assert known.rates
    return known.rates.rate(times)


def _derived_kinds(features: Features, vocabularies: Mapping[str, Vocabulary]) -> dict[str, Kind]:
    """What an encoder written before kinds were kept says of its columns by its vocabularies, scales and times."""
    kinds: dict[str, Kind] = {item.column: "number" for item in features.numeric}
    kinds |= {item.column: "time" for item in features.temporal}
    for item in features.categorical:
        vocabulary = vocabularies[item.share or item.column]
        flags = bool(len(vocabulary.values)) and set(vocabulary.values.to_pylist()) <= {0, 1}
        kinds[item.column] = "text" if vocabulary.is_text else "flag" if flags else "whole"
    return kinds


def _placed(vocabularies: Mapping[str, Vocabulary]) -> dict[str, Vocabulary]:
    """The vocabularies one after the other in the fused table."""
    placed, offset = {}, 0
    for name, vocabulary in vocabularies.items():
        placed[name] = dataclasses.replace(vocabulary, offset=offset)
        offset += vocabulary.size
    return placed


def _embedding(item: Categorical, size: int) -> int | None:
    """The field's embedding size: fixed, or min(50, int(vocabulary ** 0.25))."""
    return min(50, int(size**0.25)) if item.embedding == "auto" else item.embedding


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read `{path}` ({error})", "prepare the data again") from None
