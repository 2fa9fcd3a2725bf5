"""What a click log seems to be: its label, its times, and the kind of each column; a proposal for a person to correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocad.catalogue import CLICK_SUFFIXES, DataSource
from ocad.errors import DataError
from ocad.tables import Dialect, unusual
from ocad.tabular.kinds import kind_of
from ocad.tabular.sources import Log
from ocad.tabular.spec import Features

LABELS = ("label", "click", "clicked")


def sniff_clicks(path: Path, dialect: Dialect | None = None) -> dict[str, Any]:
    """The catalogue entry that fits the log at `path`; raises `DataError` for one without a column named like a label."""
    lines = path.name.lower().endswith(CLICK_SUFFIXES)
    written = {} if lines else unusual(path, dialect or Dialect())
    source = DataSource.model_validate({"name": path.name, "path": path.resolve(), "kind": "clicks", **written})
    schema = Log(source, source.path, Features()).schema
    label = next((name for name in schema.names if name.lower() in LABELS), None)
    if label is None:
        raise DataError(f"`{path}` has no column `label` or `click`", "name it in the entry that you write")
    kinds = {field.name: kind for field in schema if field.name != label and (kind := kind_of(field.type))}
    times = [name for name, kind in kinds.items() if kind == "time"]
    return {
        "path": str(source.path),
        "kind": "clicks",
        **written,
        "timestamp": times[0] if times else None,
        "label": label,
        "columns": {name: {"kind": kind} for name, kind in kinds.items()},
    }
