"""What every command works with: the host, a registry and a place to show progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocad.contexts import HostContext, RunContext
from ocad.errors import PluginError

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.config import PluginConfig
    from ocad.host import Host, Plugin
    from ocad.protocols import Detector, Predictor, Progress
    from ocad_registry import Registry, Version


@dataclass(frozen=True, slots=True)
class Session:
    """Binds plugins to a registry; makes the contexts that hooks receive."""

    host: Host
    registry: Registry
    progress: Progress

    def load(self, reference: str) -> Predictor | Detector:
        """The registered version `reference`, loaded by the plugin that its metadata names."""
        version = self.registry.resolve(reference)
        model: Predictor | Detector = self.plugin_of(version).ask(
            "ocad_load", context=self.host_context(), version=version
        )
        return model

    def plugin_of(self, version: Version) -> Plugin:
        """The plugin that made `version`; `PluginError` naming both when it is not installed."""
        name = version.manifest.plugin.name
        if name not in self.host.entries:
            raise PluginError(
                f"`{version.ref}` was made by the plugin `{name}`, which is not installed",
                f"install the package `{version.manifest.plugin.package}`",
            )
        return self.host.plugin(name)

    def host_context(self) -> HostContext:
        """The context of hooks that belong to no run."""
        return HostContext(registry=self.registry, load=self.load, other_plugin=self.host.plugin)

    def run_context(
        self,
        plugin: Plugin,
        config: PluginConfig,
        *,
        data: DataSource,
        metric: str | None,
        run: Path,
        resume: bool = False,
        version: Version | None = None,
        part: str = "test",
    ) -> RunContext:
        """The context of one run, or of measuring `version` again; its `epoch_ended` tells the extensions."""

        def epoch_ended(epoch: int, metrics: Mapping[str, float]) -> None:
            self.host.fire("ocad_epoch_ended", context=context, epoch=epoch, metrics=dict(metrics))

        context = RunContext(
            registry=self.registry,
            load=self.load,
            other_plugin=self.host.plugin,
            plugin=plugin.name,
            config=config,
            data=data,
            metric=metric,
            run=run,
            seed=config.seed,
            progress=self.progress,
            resume=resume,
            version=version,
            part=part,
            epoch_ended=epoch_ended,
        )
        return context
