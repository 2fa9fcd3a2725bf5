"""The plugin contract (hook API 1): entry points `ocad.plugins` implement the first part, `ocad.extensions` the events.

A hook implementation names only the arguments it needs. Values in µs go in and come out raw; normalisation belongs to the
exported graph. An exception that is not an `OcadError` is reported with the plugin's package and the hook's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ocad.contexts import (
        Evaluation,
        Export,
        HostContext,
        PluginInfo,
        PreparedData,
        RunContext,
        Trained,
        VersionDraft,
    )
    from ocad.protocols import Arrays, Detector, Predictor
    from ocad_registry import AliasEntry, Version

hookspec = pluggy.HookspecMarker("ocad")
hookimpl = pluggy.HookimplMarker("ocad")


class PluginHooks:
    """Implemented by a plugin; `ocad_plugin_info` is required, the rest as its task needs."""

    @hookspec(firstresult=True)
    def ocad_plugin_info(self) -> PluginInfo | None:
        """Name, task, one line, API version and the configuration model (a subclass of `ocad.config.PluginConfig`)."""

    @hookspec(firstresult=True)
    def ocad_prepare_data(self, context: RunContext) -> PreparedData | None:
        """Reads `context.data`, writes splits as parquet under `context.run / "data"`, fits statistics on the training split alone.

        Raises `DataError` for missing columns, wrong types, too few rows.
        """

    @hookspec(firstresult=True)
    def ocad_train(self, context: RunContext, data: PreparedData) -> Trained | None:
        """Trains on the prepared splits; with `context.resume` goes on from the run's newest checkpoint to the same result."""

    @hookspec(firstresult=True)
    def ocad_evaluate(self, context: RunContext, trained: Trained, data: PreparedData) -> Evaluation | None:
        """Measures `trained.predictor` on the test split: finite metrics under flat names, curves, plots.

        Uses only `trained.predictor`, so that a registered version can be evaluated again without its trainer.
        """

    @hookspec(firstresult=True)
    def ocad_export(self, context: RunContext, trained: Trained) -> Export | None:
        """Writes the artifacts under `context.run / "export"`: at most one `onnx`, its `onnx-data`, weights, preprocessing."""

    @hookspec(firstresult=True)
    def ocad_reference(
        self, context: RunContext, trained: Trained, inputs: Arrays
    ) -> dict[str, NDArray[np.float64]] | None:
        """The outputs that the exported graph must reproduce for `inputs`, computed by the trained model itself."""

    @hookspec(firstresult=True)
    def ocad_load(self, context: HostContext, version: Version) -> Predictor | Detector | None:
        """A registered version, ready to answer; `version.file(role)` gives verified paths."""

    @hookspec(firstresult=True)
    def ocad_detect(
        self, context: HostContext, model: Predictor | Detector, frame: pd.DataFrame
    ) -> NDArray[np.float64] | None:
        """One score per row of `frame` (DESIGN §7); higher is more anomalous, always."""

    @hookspec(firstresult=True)
    def ocad_new_detector(self, metrics: Sequence[str]) -> Detector | None:
        """A detector of `metrics` with the plugin's default settings, not fitted, for a plugin that combines several."""

    @hookspec(firstresult=True)
    def ocad_read_detector(self, value: Mapping[str, Any]) -> Detector | None:
        """The detector that its `to_json` wrote."""


class EventHooks:
    """Implemented by extensions; each receives a fact and returns nothing."""

    @hookspec
    def ocad_run_started(self, context: RunContext) -> None:
        """The run folder exists and its configuration is resolved."""

    @hookspec
    def ocad_epoch_ended(self, context: RunContext, epoch: int, metrics: dict[str, float]) -> None:
        """Epoch `epoch` (from 1) is over; `metrics` is its row of `log.csv`."""

    @hookspec
    def ocad_before_register(self, draft: VersionDraft) -> None:
        """May veto by raising `OcadError`: nothing is published then."""

    @hookspec
    def ocad_version_registered(self, version: Version) -> None:
        """`version` is live in the registry."""

    @hookspec
    def ocad_alias_moved(self, name: str, alias: str, entry: AliasEntry) -> None:
        """`entry` is the newest of the alias's history."""

    @hookspec
    def ocad_alert_raised(self, alert: dict[str, object]) -> None:
        """An alert was raised; `alert` has its JSON form."""
