"""The data catalogue: `configs/data/NAME.yaml` says where a set lies and how its columns map to the project's names and units."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from ocad.config import Settings
from ocad.errors import ConfigError, DataError, UsageError, nearest
from ocad.project import CATALOGUE, catalogue_files, project_root

SUFFIXES = (".parquet", ".csv")
CLICK_SUFFIXES = (".yzx", ".yzx.txt", ".libsvm", ".libfm", ".svm", ".svmlight")
"""Formats that only click logs have; a file in one of them is read by `ocad.tabular`."""
CAMPAIGN_FILES = ("train.yzx.txt", "test.yzx.txt")
"""What a folder of `make-ipinyou-data` holds, beside `featindex.txt`."""
UNITS = {"udp_echo": "µs", "ecpri": "µs", "lbm": "µs", "ccm": "share"}
"""The canonical metrics and their units; any other column keeps the unit that its source has."""


class Column(Settings):
    """Where a metric comes from: the source's column, and what to multiply it by to get the metric's unit."""

    name: str
    factor: float = 1.0
    unit: str = ""


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
        return {metric: {"name": value} if isinstance(value, str) else value for metric, value in columns.items()}

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
    """Every set of the catalogue, by name; raises `ConfigError` naming a file that does not fit."""
    return [_read(path) for path in catalogue_files()]


def find_data(reference: str) -> DataSource:
    """The set that `reference` names: a NAME of the catalogue, the path of a file, or the folder of an iPinYou campaign.

    `NAME:PATTERN` keeps the endpoints that match, several patterns separated by commas: `cicv5g:Urban*`. A file's
    columns map to themselves; `endpoint` and `label` are used when it has them. Raises `UsageError` for an unknown name.
    """
    base, _, patterns = reference.partition(":")
    if _catalogued(base):
        return _select(_read(project_root() / CATALOGUE / f"{base}.yaml"), patterns)
    if Path(reference).is_file():  # a path may have a colon of its own
        base, patterns = reference, ""
    return _select(_from_file(base), patterns)


def _catalogued(name: str) -> bool:
    return bool(name) and Path(name).name == name and (project_root() / CATALOGUE / f"{name}.yaml").is_file()


def _from_file(name: str) -> DataSource:
    path = Path(name)
    if path.is_dir() and all((path / file).is_file() for file in CAMPAIGN_FILES):
        log, test = (path.resolve() / file for file in CAMPAIGN_FILES)
        return DataSource(name=name, path=log, files={"test": test}, kind="clicks", timestamp=None, label="click")
    if path.name.endswith(CLICK_SUFFIXES):
        label = "click" if ".yzx" in path.suffixes else "label"
        return DataSource(name=name, path=path.resolve(), kind="clicks", timestamp=None, label=label)
    if path.suffix not in SUFFIXES:
        known = [file.stem for file in catalogue_files()]
        raise UsageError(f"unknown data `{name}`", f"{nearest(name, known)} (or give a .parquet or .csv file)")
    has_rows = path.is_file() and path.stat().st_size  # else `read_frame` says what is wrong
    header = column_names(path) if has_rows else []
    return DataSource(
        name=name,
        path=path.resolve(),
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


def column_names(path: Path) -> list[str]:
    """The header of a parquet or CSV file; raises `DataError` when it has none."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return list(pyarrow.parquet.read_schema(path).names)
        import pandas as pd

        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that is there and is no table."""
    reason = " ".join(str(error).split()).rstrip(".")
    return DataError(f"cannot read `{path}` ({reason})", "check that it is a parquet or CSV table")


def _read(path: Path) -> DataSource:
    root = path.parents[2]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        source = DataSource.model_validate({"name": path.stem, **values})
    except (OSError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the catalogue's `{path}` ({reason})", "correct the YAML") from None
    except ValidationError as error:
        raise _explain(error, path) from None
    files = {name: _resolve(root, file) for name, file in source.files.items()}
    return source.model_copy(update={"path": _resolve(root, source.path), "files": files})


def _explain(error: ValidationError, path: Path) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = Column.model_fields if len(first["loc"]) > 1 else DataSource.model_fields
        return ConfigError(f"unknown key `{key}` in the catalogue's `{path}`", nearest(str(first["loc"][-1]), known))
    message = first["msg"]
    return ConfigError(
        f"bad value for `{key}` in the catalogue's `{path}`: {message[:1].lower()}{message[1:]}", "correct it"
    )


def _resolve(root: Path, path: Path) -> Path:
    shared = os.environ.get("OCAD_SHARED_DATA") or str(root.parent / "shared" / "data")
    return (root / str(path).replace("${OCAD_SHARED_DATA}", shared)).resolve()
