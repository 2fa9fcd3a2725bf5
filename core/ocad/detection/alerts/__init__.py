"""Alerts: incidents become few notifications, kept in one file and delivered without loss. See `docs/alerts.md`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocad.detection.alerts.manager import AlertManager
from ocad.detection.alerts.settings import AlertSettings, load_settings
from ocad.detection.alerts.sinks import make_sinks
from ocad.detection.alerts.store import AlertStore, StoreError

__all__ = [
    "AlertManager",
    "AlertSettings",
    "AlertStore",
    "StoreError",
    "alerts_folder",
    "load_settings",
    "open_alerts",
    "project_settings",
]

CONFIG_FILE = Path("configs") / "detection" / "alerts.yaml"


def alerts_folder(path: str | Path | None = None) -> Path:
    """`path`, else `OCAD_ALERTS`, else `./alerts`: the folder of `alerts.db`."""
    return Path(path or os.environ.get("OCAD_ALERTS") or "alerts")


def project_settings(config_file: str | Path | None = None) -> AlertSettings:
    """The settings in `config_file`, else in the project's `configs/detection/alerts.yaml`, else the defaults."""
    file = Path(config_file) if config_file else _project_file()
    return load_settings(file, expand=config_file is not None)


def open_alerts(
    path: str | Path | None = None,
    config_file: str | Path | None = None,
    *,
    raised: Callable[[dict[str, Any]], None] = lambda alert: None,
    **options: Any,
) -> AlertManager:
    """The manager of the alerts in the folder `path` with the settings of `config_file`, its couriers at work.

    Without `config_file` the project's `configs/detection/alerts.yaml` is read, whose `${NAME}` are refused, and where that
    is absent the defaults hold (console only). `raised` is told of every alert that begins to fire: pass
    `lambda alert: host.fire("ocad_alert_raised", alert=alert)`. Raises `ConfigError` and `StoreError`.
    """
    settings = project_settings(config_file)
    folder = alerts_folder(path)
    return AlertManager(settings, AlertStore(folder), make_sinks(settings, folder), raised=raised, **options)


def _project_file() -> Path | None:
    from ocad.project import project_root

    file = project_root() / CONFIG_FILE
    return file if file.is_file() else None
