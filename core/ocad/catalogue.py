"""The data catalogue: `configs/data/NAME.yaml` says where a set lies and how its columns map to the project's names and units."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qsl, quote_plus

from pydantic import Field, ValidationError, field_validator, model_validator

from ocad.config import Settings, written_path
from ocad.errors import ConfigError, UsageError, nearest
from ocad.project import catalogue_file, catalogue_files
from ocad.tables import Dialect, is_table
from ocad.tables import column_names as names_in
from ocad.units import UNITS, factor_to, split_unit, unit_in
from ocad.yamls import NOT_YAML, load_yaml

if TYPE_CHECKING:
    from ocad.times import Clock

logger = logging.getLogger("ocad.data")

LINES = (".yzx", ".yzx.txt", ".libsvm", ".libfm", ".svm", ".svmlight")
CLICK_SUFFIXES = (*LINES, *(f"{suffix}.gz" for suffix in LINES))
"""Formats that only click logs have; a file in one of them is read by `ocad.tabular`."""
CAMPAIGN_FILES = ("train.yzx.txt", "test.yzx.txt")
"""What a folder of `make-ipinyou-data` holds, beside `featindex.txt`."""
PANDAS_INDEX = "__index_level_0__"
"""The column in which pandas keeps an index without a name."""
Kind = Literal["text", "whole", "number", "flag", "time"]
"""How a column of a click log is read: text, whole numbers, numbers, true or false, times."""


def known_zone(name: str) -> str:
    """`name`, a time zone; raises `ValueError` where there is none of that name."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name).key
    except (OSError, ValueError, KeyError):
        raise ValueError(f"there is no time zone `{name}`; write it as `Europe/Madrid`") from None


class Column(Settings):
    """Where a metric comes from: the source's column, and what to multiply it by to get the metric's unit."""

    name: str = ""
    """Empty: the column has the name that it is listed under."""
    factor: float = 1.0
    unit: str = ""
    kind: Kind | None = None
    """Of a column of a click log: how it is read, whatever it looks like."""


class Simulation(Settings):
    """A log that the project's own click world writes when it is first read."""

    rows: int = Field(ge=100)
    seed: int = 1


class DataSource(Settings):
    """One data set. A column may be written as its bare name: `udp_echo: rtt`."""

    name: str
    path: Path
    """Absolute once resolved. In YAML: relative to the project, or under `${OCAD_SHARED_DATA}`."""
    files: Mapping[str, Path] = Field(default_factory=dict)
    """Further files of the set by name, such as `test`, or the items of a click log."""
    kind: Literal["timeseries", "clicks"] = "timeseries"
    timestamp: str | None = "timestamp"
    """The time column; null where the source has none and its rows are `step_s` apart."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Needed where the time column holds numbers: their unit, counted from 1970 (UTC)."""
    time_format: str | None = None
    """Of times that are not ISO 8601, as for `strptime`: `%d.%m.%Y %H:%M:%S`."""
    time_zone: str | None = None
    """Of times without a zone, as `Europe/Madrid`; None: UTC."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Of a CSV file; None: found in the file. The same for `decimal` and `encoding`."""
    decimal: Literal[".", ","] | None = None
    encoding: str | None = None
    max_bad_lines: int = Field(default=0, ge=0)
    """Rows of a CSV file, or lines of a text log, that may be left out because they do not parse."""
    step_s: float = Field(default=1.0, gt=0)
    endpoint: str | None = None
    label: str | None = None
    simulate: Simulation | None = None
    """Of a click log: how to write `path` where it is not there."""
    columns: Mapping[str, Column] = Field(default_factory=dict)
    """Metric → source column; empty: every numeric column that has no other part."""
    where: Mapping[str, str | list[str]] = Field(default_factory=dict)
    """Source column → the values to keep, as fnmatch patterns (`*`, `?`, `[…]`, case matters)."""
    default_for: tuple[str, ...] = ()
    """The metrics, or the tasks, that are trained on this set when no `--data` is given."""
    description: str = ""
    source: str = ""
    licence: str = ""

    @field_validator("columns", mode="before")
    @classmethod
    def _bare_names(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        values = {metric: {"name": value} if isinstance(value, str) else value for metric, value in columns.items()}
        return {
            metric: {"name": metric, **value} if isinstance(value, dict) else value for metric, value in values.items()
        }

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        return zone and known_zone(zone)

    @field_validator("time_format")
    @classmethod
    def _known_format(cls, text: str | None) -> str | None:
        from ocad.times import known_format

        return text and known_format(text)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        import codecs

        try:
            return encoding and codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"there is no encoding `{encoding}`; write it as `latin-1`") from None

    @model_validator(mode="after")
    def _names_of_clicks(self) -> Self:
        renamed = next((key for key, column in self.columns.items() if column.name != key), None)
        if self.kind == "clicks" and renamed:
            raise ValueError(f"the column `{renamed}` of a click log keeps its name; only its `kind` is written")
        return self

    @property
    def dialect(self) -> Dialect:
        """How its CSV files are written, as far as the source says."""
        return Dialect(self.separator, self.decimal, self.encoding)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kinds of columns that the source states."""
        return {column.name: column.kind for column in self.columns.values() if column.kind}

    def clock(self) -> Clock:
        """A reader of its times."""
        from ocad.times import Clock

        return Clock(self.time_unit, self.time_zone, self.time_format)

    def missing(self) -> str | None:
        """Why the set cannot be read here, or None when its files are there."""
        needed = (*(() if self.simulate else (self.path,)), *self.files.values())
        absent = next((path for path in needed if not path.is_file()), None)
        return f"there is no file `{absent}`" if absent else None

    def unit_of(self, metric: str) -> str:
        """The unit of `metric`; empty when the source does not say."""
        column = self.columns.get(metric)
        return (column.unit if column else "") or UNITS.get(metric, "")

    def keeps(self, column: str, value: object) -> bool:
        """Whether `where` lets rows pass whose `column` is `value`."""
        patterns = self.where.get(column, "*")
        return any(
            fnmatchcase(str(value), pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        )


def list_data() -> list[DataSource]:
    """Every set of the catalogue, the project's own first; an entry that does not fit is left out, and that is said."""
    good, broken = read_catalogue()
    for error in broken.values():
        logger.warning("%s", error)
    return good


def read_catalogue() -> tuple[list[DataSource], dict[Path, ConfigError]]:
    """Every set of the catalogue, and by its file what is wrong with an entry that does not fit."""
    good: list[DataSource] = []
    broken: dict[Path, ConfigError] = {}
    for path in catalogue_files():
        try:
            good.append(read_entry(path))
        except ConfigError as error:
            broken[path] = error
    return good, broken


def find_data(reference: str) -> DataSource:
    """The set that `reference` names: a NAME of the catalogue, the path of a file, or the folder of an iPinYou campaign.

    `NAME?time=Time&map.udp_echo=RTT+[ms]` maps columns (see `mapped_reference`), and `:PATTERN` after that keeps the
    endpoints that match, several patterns separated by commas: `cicv5g:Urban*`. A file's columns map to themselves;
    `endpoint` and `label` are used when it has them. Raises `UsageError` for an unknown name.
    """
    base, mapping, patterns = _parted(reference)
    entry = catalogue_file(base)
    source = read_entry(entry) if entry else None
    if source is None:
        source = _from_file(base, mapping)
    return _select(_mapped(source, mapping), patterns)


def mapped_reference(data: str, options: Mapping[str, str | int | None], columns: tuple[str, ...] = ()) -> str:
    """`data` with the mapping that the options say, as one reference that finds the same rows again.

    `options` are fields of `DataSource` (`timestamp`, `endpoint`, `time_zone`, …); `columns` are `METRIC=COLUMN [UNIT]`.
    Raises `UsageError` for one that is written otherwise.
    """
    parts = {_SHORT.get(key, key): str(value) for key, value in options.items() if value is not None}
    for text in columns:
        metric, equals, column = (part.strip() for part in text.partition("="))
        if not (equals and metric and column):
            raise UsageError(f"cannot read `--map {text}`", 'write it as `--map "udp_echo=RTT (ms) [ms]"`')
        parts[f"map.{metric}"] = column
    if not parts:
        return data
    base, mapping, patterns = _parted(data)
    return f"{base}?{_quoted({**mapping, **parts})}" + (f":{patterns}" if patterns else "")


_SHORT = {"timestamp": "time"}


def stream_source(reference: str) -> DataSource:
    """How the rows of a stream are read: `-`, perhaps with a mapping as `mapped_reference` writes it."""
    return _mapped(DataSource(name="-", path=Path("-"), endpoint="endpoint"), _parted(reference)[1])


def _parted(reference: str) -> tuple[str, dict[str, str], str]:
    """The name or path, the mapping, and the patterns of a reference; a path may have `?` and `:` of its own."""
    if Path(reference).exists():
        return reference, {}, ""
    base, question, rest = reference.partition("?")
    if question and "=" in rest:
        query, _, patterns = rest.partition(":")
        return base, dict(parse_qsl(query, keep_blank_values=True)), patterns
    base, _, patterns = reference.partition(":")
    return base, {}, patterns


def _mapped(source: DataSource, mapping: Mapping[str, str]) -> DataSource:
    """`source` with the mapping of a reference; raises `UsageError` for a key or value that does not fit."""
    if not mapping:
        return source
    long = {short: key for key, short in _SHORT.items()}
    columns = {key.removeprefix("map."): _column(key.removeprefix("map."), value, source)
               for key, value in mapping.items() if key.startswith("map.")}  # fmt: skip
    fields = {long.get(key, key): value for key, value in mapping.items() if not key.startswith("map.")}
    known = (
        "timestamp",
        "endpoint",
        "label",
        "time_unit",
        "time_format",
        "time_zone",
        "separator",
        "decimal",
        "encoding",
        "max_bad_lines",
    )
    for key in fields:
        if key not in known:
            raise UsageError(f"the data reference has the unknown key `{key}`", nearest(key, known))
    written = "&".join(f"{key}={value}" for key, value in mapping.items())
    values = source.model_dump() | fields | {"name": f"{source.name}?{_quoted(mapping)}"}
    values["columns"] = {**source.columns, **columns} if columns else source.columns
    try:
        return DataSource.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"`{written}` does not fit: {message[:1].lower()}{message[1:]}", "correct it") from None


def _quoted(mapping: Mapping[str, str]) -> str:
    return "&".join(f"{key}={quote_plus(value, safe='()[]/')}" for key, value in mapping.items())


def _column(metric: str, written: str, source: DataSource) -> Column:
    """`RTT (ms) [ms]` as a column, its factor and unit; the unit that a name has itself counts where none is written."""
    name, unit = split_unit(written)
    if source.path.is_file() and written in names_in(source.path, source.dialect):
        name, unit = written, ""
    if not unit and (unit := unit_in(name)) and factor_to(metric, unit) != 1:
        logger.warning("column `%s` is read in `%s`, as its name says", name, unit)
    return Column(name=name, factor=factor_to(metric, unit), unit="" if metric in UNITS else unit)


def _from_file(name: str, mapping: Mapping[str, str]) -> DataSource:
    path = Path(name)
    if path.is_dir() and all((path / file).is_file() for file in CAMPAIGN_FILES):
        log, test = (path.resolve() / file for file in CAMPAIGN_FILES)
        return DataSource(name=name, path=log, files={"test": test}, kind="clicks", timestamp=None, label="click")
    if path.name.lower().endswith(CLICK_SUFFIXES):
        label = "click" if ".yzx" in path.name.lower() else "label"
        return DataSource(name=name, path=path.resolve(), kind="clicks", timestamp=None, label=label)
    if not is_table(path):
        known = [file.stem for file in catalogue_files()]
        raise UsageError(f"unknown data `{name}`", f"{nearest(name, known)} (or give a .parquet or .csv file)")
    has_rows = path.is_file() and path.stat().st_size  # else `read_frame` says what is wrong
    dialect = Dialect(mapping.get("separator"), mapping.get("decimal"), mapping.get("encoding"))
    header = names_in(path, dialect) if has_rows else []
    return DataSource(
        name=name,
        path=path.resolve(),
        timestamp=PANDAS_INDEX if PANDAS_INDEX in header and "timestamp" not in header else "timestamp",
        endpoint="endpoint" if "endpoint" in header else None,
        label=next((column for column in ("label", "click") if column in header), None),
    )


def _select(source: DataSource, patterns: str) -> DataSource:
    """`source` with only the endpoints that match, under the whole reference as its name."""
    if not patterns:
        return source
    if source.endpoint is None:
        raise UsageError(f"data `{source.name}` has no endpoints to choose from", f"write it without `:{patterns}`")
    where = {**source.where, source.endpoint: patterns.split(",")}
    return source.model_copy(update={"name": f"{source.name}:{patterns}", "where": where})


def column_names(source: DataSource) -> list[str]:
    """The columns of its file, in their order; raises `DataError` when it has none."""
    return names_in(source.path, source.dialect)


def read_entry(path: Path) -> DataSource:
    """One entry of the catalogue; raises `ConfigError` naming the file and the key that does not fit."""
    root, values = path.parents[2], None
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
        source = DataSource.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise _explain(error, values, path) from None
    except (OSError, TypeError, *NOT_YAML) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the catalogue's `{path}` ({reason})", "correct the YAML") from None
    files = {name: _resolve(root, file) for name, file in source.files.items()}
    return source.model_copy(update={"path": _resolve(root, source.path), "files": files})


def _explain(error: ValidationError, values: Any, path: Path) -> ConfigError:
    first = error.errors()[0]
    key = written_path(first, values)
    if first["type"] == "extra_forbidden":
        known = Column.model_fields if len(first["loc"]) > 1 else DataSource.model_fields
        return ConfigError(f"unknown key `{key}` in the catalogue's `{path}`", nearest(str(first["loc"][-1]), known))
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(
        f"bad value {f'for `{key}` ' if key else ''}in the catalogue's `{path}`: {message[:1].lower()}{message[1:]}",
        "correct it",
    )


def _resolve(root: Path, path: Path) -> Path:
    shared = os.environ.get("OCAD_SHARED_DATA") or str(root.parent / "shared" / "data")
    return (root / str(path).replace("${OCAD_SHARED_DATA}", shared)).resolve()
