"""Rows for a registered version: read, encoded and labelled as it was trained, by its own encoder; nothing is fitted."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import numpy as np

from ocad.clicks.predictor import stored_encoder
from ocad.contexts import PreparedData
from ocad.errors import DataError, UsageError
from ocad.tabular.parts import PartWriter
from ocad.tabular.prepare import FILES, Work
from ocad.tabular.sources import Log
from ocad.tabular.spec import DataSettings, Features, Split
from ocad.tabular.splits import PARTS

if TYPE_CHECKING:
    from ocad.clicks.config import ClickConfig
    from ocad.contexts import RunContext
    from ocad_registry import Version

ROLES = ("group", "price", "time", "truth")
"""Columns that are measured with and no features: other data may lack them."""


def prepare_again(context: RunContext, version: Version) -> PreparedData:
    """The rows `context.part` of `context.data` as the split `test`, encoded by the encoder of `version`.

    Raises `DataError` where the data has no such rows or lacks a column, `UsageError` for an unknown part.
    """
    if context.part not in (*PARTS, "all"):
        raise UsageError(f"there is no part `{context.part}`", "give `all`, `train`, `validation` or `test`")
    config, encoder = cast("ClickConfig", context.config), stored_encoder(version)
    recorded = version.manifest.data is not None and version.manifest.data.name == context.data.name
    # a file of test rows belongs to the data that it was given with
    settings = config.data if recorded else DataSettings(max_bad_lines=config.data.max_bad_lines)
    everything = context.part == "all"
    split = Split(kind="random") if everything else config.split
    work = Work.plan(context.data, known_roles(encoder.features, context), split, settings, context.seed)
    path = context.run / "data" / FILES["test"]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = PartWriter(path, work.features)
    try:
        for batch in work.batches(context.progress, "encoding"):
            for part in np.unique(batch.parts).tolist():
                if everything or PARTS[part] == context.part:
                    writer.add(encoder, *batch.of(part), strict=False)
    finally:
        writer.close()
    if not writer.rows:
        part = "" if everything else f" {context.part}"
        raise DataError(f"data `{context.data.name}` has no{part} rows", "give other data, or another `--part`")
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = {"test": writer.rows}
    return PreparedData(context.data.name, fingerprint, {"test": path}, rows, {"unseen": writer.unseen})


def known_roles(features: Features, context: RunContext) -> Features:
    """`features` as they were fitted, without the roles whose column the data does not have."""
    fitted = features.model_copy(update={"auto": False})
    names = Log(context.data, context.data.path, fitted).schema.names
    absent = {role: None for role in ROLES if getattr(features, role) not in names}
    return fitted.model_copy(update={"drop": (), **absent})
