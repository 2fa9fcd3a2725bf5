"""Fits an encoder: one pass over the training rows, batch by batch, then one more where a scale needs the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocad.errors import DataError
from ocad.tabular.columns import Rows, column_of, numbers, seconds
from ocad.tabular.encoder import Encoder, TimeColumn, split_slots, time_number
from ocad.tabular.scalers import Scaler, ScalerFit
from ocad.tabular.spec import Categorical, Features, Temporal
from ocad.tabular.temporal import HOUR, PARTS, HourlyRates, TemporalFit
from ocad.tabular.vocabulary import ValueCounts, Vocabulary, build_vocabulary

Labels = NDArray[np.float32]


class EncoderFit:
    """Takes in the training rows and nothing else; `result` is the encoder."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.rows = 0
        self._counts = {item.column: ValueCounts() for item in features.categorical if not item.share}
        self._numbers = {item.column: ScalerFit(item.transform) for item in features.numeric}
        self._times = {item.column: TemporalFit() for item in features.temporal}

    def add(self, table: pa.Table, label: Labels, numbered: Rows = 0) -> None:
        """Takes in a batch of training rows with their labels (0 or 1) and, for messages, their numbers in the file."""
        self.rows += len(table)
        for item in self.features.categorical:
            for values in split_slots(column_of(table, item.column), item):
                self._counts[item.share or item.column].add(values, item.column)
        for name, fit in self._numbers.items():
            fit.add(numbers(column_of(table, name), name, numbered))
        for time in self.features.temporal:
            moments = seconds(column_of(table, time.column), time.column, time.unit, numbered)
            self._times[time.column].add(moments, label)

    def result(self) -> Encoder:
        """The fitted encoder; raises `DataError` for a column without a value in the training rows."""
        if not self.rows:
            raise DataError("there are no training rows", "lower `split.validation` and `split.test`")
        vocabularies = {
            item.column: _vocabulary(item, self._counts[item.column])
            for item in self.features.categorical
            if not item.share
        }
        scalers = {name: fit.result(name) for name, fit in self._numbers.items()}
        times = {}
        for item in self.features.temporal:
            fit = self._times[item.column]
            rates = fit.rates(item.smoothing)
            times[item.column] = TimeColumn(fit.newest, rates if "historical_ctr" in item.parts else None)
            vocabularies |= {f"{item.column}_{part}": _whole(part) for part in item.parts if part in PARTS}
            scalers |= _time_scalers(item, times[item.column], rates)
        return Encoder(self.features, vocabularies, scalers, times)

    def missing(self) -> dict[str, int]:
        """Missing values of the training rows by column."""
        counted: Mapping[str, ValueCounts | ScalerFit] = {**self._counts, **self._numbers}
        return {name: fit.missing for name, fit in counted.items()}


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
