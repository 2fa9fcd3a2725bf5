"""What the checks of the conformance suite work with: a bench that each stage leaves its result on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ocad.config import Config, PluginConfig, load_config
from ocad.contexts import Evaluation, Export, PreparedData, RunContext, Trained
from ocad.errors import UsageError
from ocad.host import Plugin
from ocad.runs import TrainRequest
from ocad.session import Session

if TYPE_CHECKING:
    from ocad_registry import Version

_SHORT_TRAINING = "train.epochs=2"
MEMBERS = ("rule_based", "changepoint")
"""The plugins that a composite is checked with."""
FORECASTER = "tcn"
"""The plugin that a detector of residuals is checked with."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise and whether it is kept: `verdict` is `passed`, `failed` or `skipped`; `detail` says why."""

    check: str
    verdict: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return asdict(self)


@dataclass
class Bench:
    """What the checks share; each stage leaves its result for the next."""

    session: Session
    plugin: Plugin
    folder: Path
    data: str
    metric: str | None
    context: RunContext | None = None
    prepared: PreparedData | None = None
    trained: Trained | None = None
    evaluation: Evaluation | None = None
    export: Export | None = None
    version: Version | None = None
    parts: tuple[str, ...] = ()
    """Settings that name the registered versions which the plugin is built from."""
    findings: list[Finding] = field(default_factory=list)

    def config(self) -> PluginConfig:
        """The plugin's defaults, with two epochs where it trains by epochs, and what it is built from."""
        return short_config(self.plugin.info.config, self.parts)

    def make_context(self, run: str) -> RunContext:
        """The context of a fresh run folder."""
        from ocad.catalogue import find_data

        folder = self.folder / run
        folder.mkdir()
        source = find_data(self.data)
        return self.session.run_context(self.plugin, self.config(), data=source, metric=self.metric, run=folder)


class Skipped(Exception):  # noqa: N818
    """Raised by a check that does not apply."""


def bench_rows(task: str, folder: Path, data: str | None, metric: str | None) -> tuple[str, str | None]:
    """The data and the metric: as given, else a click log, a series with incidents, or a series, as the task needs."""
    from ocad.testing.clicks import write_clicks
    from ocad.testing.series import write_incidents, write_series

    if task == "ctr":
        return data or str(write_clicks(folder / "clicks.parquet")), metric
    metric = metric or "udp_echo"
    if task == "detect":
        return data or str(write_incidents(folder / "incidents.parquet", metric)), metric
    return data or str(write_series(folder / "series.parquet", metric)), metric


def short_config(model: type[Config], overrides: Iterable[str] = ()) -> Config:
    """`model` with its defaults and `overrides`, `train.epochs` set to 2 where it has that."""
    train = model.model_fields.get("train")
    kind = train.annotation if train else None
    by_epochs = isinstance(kind, type) and issubclass(kind, BaseModel) and "epochs" in kind.model_fields
    return load_config(model, None, [_SHORT_TRAINING, *overrides] if by_epochs else overrides)


def train_parts(bench: Bench) -> tuple[str, ...]:
    """Trains what the plugin is built from, in the bench's registry; the settings that name it.

    Detectors for a config that has `members`, a short forecaster for one that has `forecasters`; nothing for others.
    """
    from ocad.pipeline import train

    def trained(plugin: str, *overrides: str) -> str:
        runs = str(bench.folder / "runs")
        request = TrainRequest(plugin, bench.metric, bench.data, overrides=overrides, runs=runs)
        return train(request, bench.session).version.ref

    known, parts = bench.plugin.info.config.model_fields, []
    if "members" in known:
        parts.append(f"members=[{','.join(trained(name) for name in MEMBERS)}]")
    if "forecasters" in known:
        short = (_SHORT_TRAINING, "network.scaling=robust", "network.view=absolute")
        parts.append(f"forecasters=[{trained(FORECASTER, *short)}]")
    return tuple(parts)


def need(stage: Any) -> Any:
    """What an earlier check left; raises `UsageError` when it failed."""
    if stage is None:
        raise UsageError("an earlier check failed", "see above")
    return stage
