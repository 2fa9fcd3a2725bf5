"""The configuration of alerts, `configs/detection/alerts.yaml`: when incidents become notifications and where these go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ocad.config import PluginConfig, Settings, load_config
from ocad.errors import ConfigError

GroupField = Literal["endpoint", "family", "kind"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write it as `http://HOST:PORT/PATH` or `https://…`")
    return url


Url = Annotated[str, AfterValidator(_http)]


class LevelSettings(Settings):
    """What lifts an alert to a severity: any one of the three that is reached; null leaves one out."""

    score: Threshold = None
    sigmas: Threshold = None
    seconds: Threshold = None


class SeveritySettings(Settings):
    """The thresholds of `warning` and `critical`; an alert below both is `info`, and none is ever lowered."""

    warning: LevelSettings = LevelSettings(score=6, sigmas=8, seconds=300)
    critical: LevelSettings = LevelSettings(score=12, sigmas=20, seconds=1800)


class ConsoleSettings(Settings):
    """One line on stderr for each notification."""


class JsonlSettings(Settings):
    """One JSON line for each notification, each exactly once; `path` is relative to the folder of `alerts.db`."""

    path: Path = Path("alerts.jsonl")


class WebhookSettings(Settings):
    """A JSON POST for each notification; `${NAME}` in the address or a header is taken from the environment."""

    url: Url
    headers: dict[str, str] = Field(default={})
    timeout_s: PositiveSeconds = 10

    def resolved_url(self) -> str:
        """The address with variables of the environment filled in, so that no secret stands in the file."""
        return os.path.expandvars(self.url)

    def resolved_headers(self) -> dict[str, str]:
        """The headers, likewise."""
        return {name: os.path.expandvars(value) for name, value in self.headers.items()}


class AlertmanagerSettings(WebhookSettings):
    """The base address of an Alertmanager; firing alerts are sent again every `resend_s`, below its `resolve_timeout`."""

    alertname: str = "OcadIncident"
    resend_s: PositiveSeconds = 60


class SinkSettings(Settings):
    """Where notifications go; null leaves a sink out. Routing, silences and inhibition are Alertmanager's."""

    console: ConsoleSettings | None = ConsoleSettings()
    jsonl: JsonlSettings | None = None
    webhook: WebhookSettings | None = None
    alertmanager: AlertmanagerSettings | None = None


class DeliverySettings(Settings):
    """How an unreachable sink is tried again: after `first_s`, doubled each time up to `longest_s`, halved at random."""

    first_s: PositiveSeconds = 0.5
    longest_s: PositiveSeconds = 60
    refused_attempts: Annotated[int, Field(ge=1)] = 5
    """Attempts after which a notification that the receiver refuses (HTTP 4xx) is set aside until the next start."""
    drain_s: Seconds = 5
    """How long `close` waits for the sinks; what is left then stays in the outbox."""


class AlertSettings(Settings):
    """Every time is in seconds of the data's own clock, those of `delivery` and `resend_s` in real ones."""

    families: dict[str, tuple[str, ...]] = Field(
        default={"delay": ("udp_echo", "ecpri", "lbm"), "continuity": ("ccm",)}
    )
    """Metrics whose incidents at one endpoint are one alert; a metric in none is a family of its own."""
    group_by: tuple[GroupField, ...] = ("family",)
    group_wait_s: Seconds = 30
    hold_down_s: Seconds = 120
    repeat_s: Seconds = 14400
    """0 never repeats."""
    stale_after_s: PositiveSeconds = 3600
    """An open incident of a detector that is gone is closed when nobody has seen it for so long."""
    update_s: Seconds = 10
    """How often the progress of an open incident is stored when nothing but its length and figures changed."""
    retention_days: PositiveSeconds = 30
    memory_incidents: Annotated[int, Field(ge=1)] = 1000
    """Incidents kept in memory while the store cannot be written."""
    severity: SeveritySettings = SeveritySettings()
    sinks: SinkSettings = SinkSettings()
    delivery: DeliverySettings = DeliverySettings()


def load_settings(file: Path | None) -> AlertSettings:
    """The settings in the YAML `file`, or the defaults; raises `ConfigError` naming the key and the nearest known one."""
    if file is not None and not file.exists():
        raise ConfigError(f"no configuration of alerts `{file}`", "check the path given to `--alert-config`")
    # load_config reads any Settings; its signature names the subclass that most of its callers have
    return cast(AlertSettings, load_config(cast(type[PluginConfig], AlertSettings), file))
