"""What answers: the trained model in its run, and the stored graph in a registered version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ocad.clicks.model import IDS, LOGIT, NUMERICS, PROBABILITY, InputShape, Scorer
from ocad.errors import DataError, UsageError
from ocad.export.runtime import OnnxPredictor, check_inputs, open_session
from ocad.tabular.encoder import PREPROCESS_FILE, VOCABULARY_FILE, Encoder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ocad.calibration.calibrators import Calibrator
    from ocad.catalogue import DataSource
    from ocad.protocols import Arrays
    from ocad.tabular.dataset import Clicks
    from ocad_registry import Version

BATCH_ROWS = 1 << 16

Answer = Callable[["pa.Table", int], NDArray[Any]]
"""Probabilities `(n, 1)` of a table whose first row has this number in its file."""


class ClickPredictor(Protocol):
    """A predictor of probabilities that also knows its log-odds before calibration."""

    shape: InputShape

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """`probability` `(n, 1)`; see `Predictor.predict`."""
        ...

    def logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """Log-odds `(n,)` before calibration."""
        ...


class FittedPredictor:
    """A trained scorer with its calibrator."""

    def __init__(self, scorer: Scorer, calibrator: Calibrator, shape: InputShape) -> None:
        self.shape, self.signature = shape, shape.signature()
        self._scorer, self._calibrator = scorer, calibrator

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `ClickPredictor`."""
        return {PROBABILITY: self._calibrator.apply(self.logit(check_inputs(self.signature, inputs)))[:, None]}

    def logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """See `ClickPredictor`."""
        return self._scorer.logit(inputs)


class StoredPredictor(OnnxPredictor):
    """A registered version: arrays by `predict`, rows of a log by `predict_source` through the stored encoder."""

    def __init__(self, version: Version) -> None:
        signature = version.manifest.signature
        if signature is None:
            raise DataError(f"`{version.ref}` has no signature", "train and register it again")
        self._graph = version.file("onnx")
        super().__init__(self._graph, signature)
        self.encoder = stored_encoder(version)
        self.shape = InputShape.of(self.encoder)
        self._logits: Any = None

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `ClickPredictor`; raises `DataError` naming row and field of an id that is none of the field's own."""
        feeds = check_inputs(self.signature, inputs)
        refuse_foreign_ids(feeds, self.encoder)
        return super().predict(feeds)

    def logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """See `ClickPredictor`; the value inside the stored graph from which the calibrator starts."""
        if self._logits is None:
            self._logits = open_session(self._graph, inner=(LOGIT,))
        feeds = check_inputs(self.signature, inputs)
        logits: NDArray[Any] = self._logits.run([LOGIT], feeds)[0]
        return logits[:, 0].astype(np.float64)

    def predict_source(self, source: DataSource) -> pd.DataFrame:
        """One row for each row of `source`, in its order: `probability`. A category that training had not counts as rare."""

        def answer(table: pa.Table, first: int) -> NDArray[Any]:
            encoded = self.encoder.transform(table, first)
            probability: NDArray[Any] = self.predict(self.shape.arrays(encoded.ids, encoded.numerics))[PROBABILITY]
            return probability

        return predict_rows(source, self.encoder, answer)


class StoredRawPredictor(OnnxPredictor):
    """A registered graph over raw columns: arrays of columns `(n, 1)` by `predict`, rows of a log by `predict_source`."""

    def __init__(self, version: Version) -> None:
        signature = version.manifest.signature
        if signature is None:
            raise DataError(f"`{version.ref}` has no signature", "train and register it again")
        super().__init__(version.file("onnx"), signature)
        self.encoder = stored_encoder(version)
        self._parent = version.manifest.parents[0].ref if version.manifest.parents else version.ref

    @property
    def shape(self) -> InputShape:
        """Not to be had: raises `UsageError` naming the model that this one wraps."""
        raise UsageError("a graph over raw columns is evaluated through its parent", f"evaluate `{self._parent}`")

    def predict_source(self, source: DataSource) -> pd.DataFrame:
        """One row for each row of `source`, in its order: `probability`."""
        from ocad.tabular.raw_graph import raw_columns

        def answer(table: pa.Table, _first: int) -> NDArray[Any]:
            probability: NDArray[Any] = self.predict(raw_columns(table, self.encoder))[PROBABILITY]
            return probability

        return predict_rows(source, self.encoder, answer)


def stored_encoder(version: Version) -> Encoder:
    """The encoder that travels with `version`, its files' digests verified."""
    version.verify()
    return Encoder.load(version.named(PREPROCESS_FILE), version.named(VOCABULARY_FILE))


def refuse_foreign_ids(inputs: Arrays, encoder: Encoder) -> None:
    """Raises `DataError` where an id lies outside its field's rows of the fused table: it would answer for another value."""
    if IDS not in inputs or not inputs[IDS].size:
        return
    ids = inputs[IDS]
    low = np.asarray([field.offset for field in encoder.fields])
    high = low + np.asarray([field.size for field in encoder.fields])
    wrong = (ids < low) | (ids >= high)
    if wrong.any():
        row, place = map(int, np.argwhere(wrong)[0])
        field = encoder.fields[place]
        raise DataError(
            f"id {ids[row, place]} of the field `{field.name}` in row {row} is out of range",
            f"its ids are {field.offset} to {field.offset + field.size - 1}",
        )


def predict_rows(source: DataSource, encoder: Encoder, answer: Answer) -> pd.DataFrame:
    """`answer(table, first row)` over the rows of `source` with the encoder's columns, a batch at a time."""
    import pandas as pd

    from ocad.tabular.prepare import tell_odd
    from ocad.tabular.sources import Log

    parts, first = [], 0
    encoder.unseen, encoder.odd = dict.fromkeys(encoder.unseen, 0), {}
    for table in Log(source, source.path, encoder.features, kinds=encoder.kinds).tables(encoder.columns):
        parts.append(answer(table, first)[:, 0])
        first += len(table)
    tell_odd(f"data `{source.name}`", first, encoder.unseen, encoder.odd)
    return pd.DataFrame({PROBABILITY: np.concatenate(parts) if parts else np.zeros(0, np.float32)})


def predict_clicks(predictor: ClickPredictor, clicks: Clicks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities and log-odds `(n,)` of prepared rows, a batch at a time."""
    probability, logit = np.empty(len(clicks)), np.empty(len(clicks))
    for start in range(0, len(clicks), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        inputs = predictor.shape.arrays(clicks.ids[rows], clicks.numerics[rows])
        probability[rows] = predictor.predict(inputs)[PROBABILITY][:, 0]
        logit[rows] = predictor.logit(inputs)
    return probability, logit


def load(version: Version) -> StoredPredictor | StoredRawPredictor:
    """The predictor of a registered version, by what its graph takes."""
    signature = version.manifest.signature
    takes_ids = signature is not None and {tensor.name for tensor in signature.inputs} <= {IDS, NUMERICS}
    return StoredPredictor(version) if takes_ids else StoredRawPredictor(version)
