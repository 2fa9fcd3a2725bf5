"""Fits an encoder: one pass over the training rows, batch by batch, then one more where a scale needs the first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocad.catalogue import Kind
from ocad.errors import DataError
from ocad.tabular.columns import Rows, categories, column_of, numbers, seconds
from ocad.tabular.encoder import Encoder, TimeColumn, split_slots, time_number
from ocad.tabular.kinds import kind_of
from ocad.tabular.scalers import Scaler, ScalerFit
from ocad.tabular.spec import Categorical, Features, Temporal, without
from ocad.tabular.temporal import HOUR, PARTS, HourlyRates, TemporalFit
from ocad.tabular.vocabulary import ValueCounts, Vocabulary, build_vocabulary

Labels = NDArray[np.float32]


class EncoderFit:
    """Takes in the training rows and nothing else; `result` is the encoder."""

    def __init__(self, features: Features, kinds: Mapping[str, Kind] | None = None) -> None:
        self.features = features
        self.kinds: dict[str, Kind] = dict(kinds or {})
        """Of each column; where none is given, that of the first batch's type."""
        self.rows = 0
        self._counts = {item.column: ValueCounts() for item in features.categorical if not item.share}
        self._numbers = {item.column: ScalerFit(item.transform) for item in features.numeric}
        self._times = {item.column: TemporalFit() for item in features.temporal}

    def add(self, table: pa.Table, label: Labels, numbered: Rows = 0) -> None:
        """Takes in a batch of training rows with their labels (0 or 1) and, for messages, their numbers in the file."""
        self.rows += len(table)
        for item in self.features.categorical:
            column = column_of(table, item.column)
            kind = self.kinds.setdefault(item.column, self._own_kind(item, column))
            for values in split_slots(column, item):
                self._counts[item.share or item.column].add(categories(values, item.column, kind, numbered))
        for name, fit in self._numbers.items():
            fit.add(numbers(column_of(table, name), name, numbered))
        for time in self.features.temporal:
            moments = seconds(column_of(table, time.column), time.column, time.clock(), numbered)
            self._times[time.column].add(moments, label)

    def empty(self) -> set[str]:
        """Columns without a value in the training rows."""
        shared = {item.share for item in self.features.categorical}
        words = {name for name, counts in self._counts.items() if not counts.seen and name not in shared}
        return words | {name for name, fit in self._numbers.items() if not fit.count}

    def result(self, automatic: Collection[str] = ()) -> Encoder:
        """The fitted encoder, without those of the `automatic` columns that have no value in the training rows.

        Raises `DataError` for another column without one.
        """
        if not self.rows:
            raise DataError("there are no training rows", "lower `split.validation` and `split.test`")
        self.features = without(self.features, self.empty() & set(automatic))
        if not (self.features.categorical or self.features.numeric or self.features.temporal):
            raise DataError("no column has a value in the training rows", "check the file")
        vocabularies = {
            item.column: _vocabulary(item, self._counts[item.column])
            for item in self.features.categorical
            if not item.share
        }
        scalers = {item.column: self._numbers[item.column].result(item.column) for item in self.features.numeric}
        times = {}
        for item in self.features.temporal:
            fit = self._times[item.column]
            rates = fit.rates(item.smoothing)
            times[item.column] = TimeColumn(fit.newest, rates if "historical_ctr" in item.parts else None)
            vocabularies |= {f"{item.column}_{part}": _whole(part) for part in item.parts if part in PARTS}
            scalers |= _time_scalers(item, times[item.column], rates)
        return Encoder(self.features, vocabularies, scalers, times, self.kinds)

    def missing(self) -> dict[str, int]:
        """Missing values of the training rows by column."""
        counted: Mapping[str, ValueCounts | ScalerFit] = {**self._counts, **self._numbers}
        return {name: fit.missing for name, fit in counted.items()}

    def _own_kind(self, item: Categorical, column: pa.Array) -> Kind:
        if item.share and item.share in self.kinds:
            return self.kinds[item.share]
        own = kind_of(column.type) or "text"
        return "text" if item.separator or own == "time" else "whole" if own == "number" else own


def fit_encoder(features: Features, batches: Callable[[], Iterable[tuple[pa.Table, Labels]]]) -> Encoder:
    """The encoder fitted on what `batches()` yields: tables of training rows with their labels."""
    fit = EncoderFit(features)
    for table, label in batches():
        fit.add(table, label)
    return fit.result()


def _vocabulary(item: Categorical, counts: ValueCounts) -> Vocabulary:
    return build_vocabulary(
        item.column, counts, min_count=item.min_count, max_values=item.max_values, buckets=item.buckets
    )


def _whole(part: str) -> Vocabulary:
    """Every hour or weekday, whether training had it or not."""
    return Vocabulary(part, pa.array(range(PARTS[part]), pa.int64()), has_missing=False)


def _time_scalers(item: Temporal, known: TimeColumn, rates: HourlyRates) -> dict[str, Scaler]:
    """Standardises the numeric parts by their distribution over the training rows, taken at the start of each hour."""
    scalers = {}
    moments = rates.hours * HOUR
    for part in item.parts:
        if part not in PARTS:
            values = time_number(part, moments, known).astype(np.float64)
            mean = float(np.average(values, weights=rates.rows))
            deviation = float(np.sqrt(np.average(np.square(values - mean), weights=rates.rows)))
            scalers[f"{item.column}_{part}"] = Scaler("standard", mean, deviation or 1.0)
    return scalers
