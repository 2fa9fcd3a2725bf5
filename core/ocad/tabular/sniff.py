"""What a click log seems to be: its label, and the kind of each column by all rows; a proposal for a person to correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocad.catalogue import DataSource
from ocad.tables import Dialect
from ocad.tabular.kinds import kind_of
from ocad.tabular.sources import Log
from ocad.tabular.spec import Features

LABELS = ("label", "click", "clicked")


def sniff_clicks(path: Path, dialect: Dialect) -> dict[str, Any] | None:
    """The catalogue entry that fits the file at `path`; None for one without a column named like a label."""
    written = {name: value for name, value in vars(dialect).items() if value is not None}
    source = DataSource.model_validate({"name": path.name, "path": path.resolve(), "kind": "clicks", **written})
    schema = Log(source, source.path, Features()).schema
    label = next((name for name in schema.names if name.lower() in LABELS), None)
    if label is None:
        return None
    kinds = {field.name: kind for field in schema if field.name != label and (kind := kind_of(field.type))}
    columns = {name: {"kind": kind} for name, kind in kinds.items()}
    return {
        "path": str(source.path),
        "kind": "clicks",
        **written,
        "timestamp": None,
        "label": label,
        "columns": columns,
    }
