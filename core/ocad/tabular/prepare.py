"""From a click log to prepared files: two passes over the rows, the first fitting on training rows, the second encoding.

Memory holds one batch, the vocabularies, and for a split by time one number a row.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocad.catalogue import Kind
from ocad.contexts import PreparedData, RunContext
from ocad.errors import DataError
from ocad.runs import write_json
from ocad.tabular.encoder import PREPROCESS_FILE, VOCABULARY_FILE, Encoder
from ocad.tabular.fitting import EncoderFit
from ocad.tabular.kinds import fitted_kinds
from ocad.tabular.parts import PartWriter, labels
from ocad.tabular.sources import Log
from ocad.tabular.spec import DataSettings, Features, Split, Temporal, resolve, split_column, used_columns
from ocad.tabular.splits import PARTS, TEST, TRAIN, VALIDATION, Assign, Shares, assigner

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.protocols import Progress

logger = logging.getLogger("ocad.data")
FILES = {"train": "train_data.parquet", "validation": "val_data.parquet", "test": "test_data.parquet"}
STATISTICS_FILE, FINGERPRINT_FILE = "stats.json", "fingerprint.txt"


def prepare_clicks(
    context: RunContext, features: Features, split: Split, data: DataSettings | None = None
) -> PreparedData:
    """Prepares `context.data` under `context.run / "data"`; see `prepare`."""
    return prepare(
        context.data,
        features,
        split,
        data or DataSettings(),
        seed=context.seed,
        folder=context.run / "data",
        progress=context.progress,
    )


def prepare(
    source: DataSource,
    features: Features,
    split: Split,
    data: DataSettings,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
) -> PreparedData:
    """Writes the three splits, `preprocess.json`, `vocab.json`, `stats.json` and `fingerprint.txt` to `folder`.

    The same rows, settings and seed give the same bytes. Raises `DataError` naming file, column, row or line for data
    that cannot be used, `UsageError` for a split without its column.
    """
    work = Work.plan(source, features, split, data, seed)
    folder.mkdir(parents=True, exist_ok=True)
    fit, seen = EncoderFit(work.features, work.kinds), 0
    for batch in work.batches(progress, "fitting"):
        seen += len(batch.rows)
        if (batch.parts == TRAIN).any():
            fit.add(*batch.of(TRAIN))
    if not fit.rows and not seen:
        raise DataError(f"data `{source.name}` has no rows", "write it again")
    encoder = fit.result(work.automatic)
    unused = {**work.unused, **dict.fromkeys(sorted(fit.empty() & work.automatic), "no value in the training rows")}
    if unused:
        told = "; ".join(f"`{name}` ({reason})" for name, reason in unused.items())
        logger.warning("data `%s`: columns that are no feature: %s", source.name, told)
    writers = [PartWriter(folder / FILES[part], work.features) for part in PARTS]
    try:
        for batch in work.batches(progress, "encoding"):
            for part in np.unique(batch.parts).tolist():
                writers[part].add(encoder, *batch.of(part), strict=batch.divided)
    finally:
        for writer in writers:
            writer.close()
    for part, writer in zip(PARTS, writers, strict=True):
        writer.require_both_classes(part, source.name, str(work.features.label.column))
        for name, count in writer.unseen.items():
            if count == writer.rows > 1 and part != "train":
                logger.warning("data `%s`: no %s row has a value of `%s` that training had", source.name, part, name)
        tell_odd(f"{part} rows of data `{source.name}`", writer.rows, {}, writer.odd)
    encoder.save(folder)
    statistics = {**_statistics(work, encoder, fit, writers), "unused": unused}
    write_json(folder / STATISTICS_FILE, statistics)
    fingerprint = _fingerprint(folder)
    (folder / FINGERPRINT_FILE).write_text(fingerprint + "\n", encoding="utf-8")
    return PreparedData(
        name=source.name,
        fingerprint=fingerprint,
        splits={part: folder / FILES[part] for part in PARTS},
        rows={part: writer.rows for part, writer in zip(PARTS, writers, strict=True)},
        statistics=statistics,
    )


def tell_odd(what: str, rows: int, unseen: Mapping[str, int], odd: Mapping[str, int]) -> None:
    """Warns of values that count as rare because training had none such, or as missing because they are of another kind."""
    for name, count in unseen.items():
        if count:
            logger.warning(
                "%s: %d of %d values of `%s` are new or of another kind, counted as rare", what, count, rows, name
            )
    for name, count in odd.items():
        if count:
            logger.warning(
                "%s: %d of %d values of `%s` are no numbers or times, counted as missing", what, count, rows, name
            )


def load_encoder(folder: Path) -> Encoder:
    """The encoder of a folder that `prepare` wrote."""
    return Encoder.load(folder / PREPROCESS_FILE, folder / VOCABULARY_FILE)


@dataclass(frozen=True)
class Batch:
    """Rows with the part, the label and the number in the file of each."""

    table: pa.Table
    parts: NDArray[np.int8]
    label: NDArray[np.float32]
    rows: NDArray[np.int64]
    divided: bool
    """Whether they are of the log itself, not of a file for one part: there, nothing odd is let pass."""

    def of(self, part: int) -> tuple[pa.Table, NDArray[np.float32], NDArray[np.int64]]:
        """The rows of one part, their labels and numbers."""
        chosen = self.parts == part
        return self.table.filter(pa.array(chosen)), self.label[chosen], self.rows[chosen]


@dataclass(frozen=True)
class Work:
    """What is read, and which rows of it are which part."""

    features: Features
    kinds: dict[str, Kind]
    automatic: frozenset[str]
    unused: Mapping[str, str]
    columns: list[str]
    main: Log
    assign: Assign
    files: dict[int, Log]
    """The parts that have a file of their own."""

    @classmethod
    def plan(cls, source: DataSource, features: Features, split: Split, data: DataSettings, seed: int) -> Work:
        """Which rows of `source` are read and how; `features` resolved."""
        main = Log(source, source.path, features, data.max_bad_lines)
        resolved = resolve(features, split, main.schema, source)
        features = resolved.features
        paths = {
            VALIDATION: data.validation or source.files.get("validation"),
            TEST: data.test or source.files.get("test"),
        }
        column = split_column(features, split)
        columns = list(dict.fromkeys([*used_columns(features, split), *([column] if column else [])]))
        kinds = fitted_kinds(features, main.schema, columns, source.kinds)
        files = {part: Log(source, path, features, data.max_bad_lines, kinds) for part, path in paths.items() if path}
        shares = Shares(
            validation=0.0 if VALIDATION in files else split.validation, test=0.0 if TEST in files else split.test
        )
        if split.kind == "given" and not column and not files:
            raise DataError(
                "`split.kind=given`, but no part is given", "name `split.column`, `data.validation` or `data.test`"
            )
        timed = next((time for time in features.temporal if time.column == column), None)
        timed = timed or Temporal(
            column=column or "",
            unit=source.time_unit or "s",
            time_zone=source.time_zone,
            time_format=source.time_format,
        )
        kind = kinds[column] if column else "text"
        kind = "whole" if split.kind == "group" and kind == "number" else kind
        assign = assigner(
            split, column, shares, seed, lambda: main.tables([column] if column else []), timed.clock, kind
        )
        return cls(features, kinds, resolved.automatic, resolved.unused, columns, main, assign, files)

    def batches(self, progress: Progress, label: str) -> Iterator[Batch]:
        """Every row once."""
        for part, log in {TRAIN: self.main, **self.files}.items():
            divided = log is self.main
            columns = self.columns if divided else used_columns(self.features, Split())
            first = 0
            with progress.task(f"{label} {log.path.name}", log.rows) as task:
                for table in log.tables(columns):
                    rows = np.arange(first, first + len(table))
                    parts = self.assign(table, first) if divided else np.full(len(table), part, np.int8)
                    yield Batch(table, parts, labels(table, self.features.label, rows), rows, divided)
                    first += len(table)
                    task.advance(len(table))


def _statistics(work: Work, encoder: Encoder, fit: EncoderFit, writers: list[PartWriter]) -> dict[str, Any]:
    """What `stats.json` says of the rows; the encoder's own numbers are of training rows alone."""
    return {
        "rows": {part: writer.rows for part, writer in zip(PARTS, writers, strict=True)},
        "click_rate": {part: writer.clicks / writer.rows for part, writer in zip(PARTS, writers, strict=True)},
        "unseen": {part: writer.unseen for part, writer in zip(PARTS, writers, strict=True)},
        "odd": {part: writer.odd for part, writer in zip(PARTS, writers, strict=True)},
        "bad_lines": {PARTS[part]: log.bad_lines for part, log in {TRAIN: work.main, **work.files}.items()},
        "missing": fit.missing(),
        "table_rows": encoder.table_rows,
        "fields": [dataclasses.asdict(field) for field in encoder.fields],
        "vocabularies": {name: dict(entry.statistics) for name, entry in encoder.vocabularies.items()},
        "numerics": {name: {"mean": scaler.mean, "scale": scaler.scale} for name, scaler in encoder.scalers.items()},
    }


def _fingerprint(folder: Path) -> str:
    """sha256 over the prepared rows and the encoder."""
    digest = hashlib.sha256()
    for name in (*FILES.values(), PREPROCESS_FILE, VOCABULARY_FILE):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
