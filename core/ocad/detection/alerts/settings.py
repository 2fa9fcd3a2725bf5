"""The configuration of alerts, `configs/detection/alerts.yaml`: when incidents become notifications and where these go."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ocad.config import PluginConfig, Settings, load_config
from ocad.detection.incidents import Kind
from ocad.errors import ConfigError, printable

GroupField = Literal["endpoint", "family", "kind"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
Share = Annotated[float, Field(gt=0, le=1)] | None


_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header (RFC 9110, 5.1)."""
_FRAMING = {"content-length", "transfer-encoding"}
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")


def _http(url: str) -> str:
    if _VARIABLE.search(url):  # looked at again when it is filled in
        return url
    parts = urlsplit(url)
    try:
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError("write it as `http://HOST:PORT/PATH` or `https://…`")
    rest = f"{parts.path}{parts.query}"
    if not rest.isascii() or " " in rest:
        raise ValueError("write what is not ASCII, and spaces, as `%20` and the like")
    return url


def _header(name: str, value: str) -> str:
    """What is wrong with a header, for a person; "" for nothing."""
    if not _HEADER.fullmatch(name):
        return "it is no name of a header"
    if name.lower() in _FRAMING:
        return "it is decided by what is sent"
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return "it has characters that no header can hold"
    return ""


Url = Annotated[str, AfterValidator(_http)]


class Impact(Settings):
    """What lifts an alert to a severity: all that is given must be reached, and something must be given."""

    kind: Kind | None = None
    lost: Share = None
    """Share of rows or messages that were lost, 0 to 1; from the third expected row on."""
    times: Threshold = None
    """The level as a multiple of the normal one."""
    seconds: Threshold = None
    """How long it has lasted."""
    score: Threshold = None
    sigmas: Threshold = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a line without any threshold always holds: give at least one")
        return self


def _lines(value: object) -> object:
    """A mapping stands for one line for each of its keys, any one of which is enough."""
    return [{name: item} for name, item in value.items() if item is not None] if isinstance(value, Mapping) else value


Impacts = Annotated[tuple[Impact, ...], BeforeValidator(_lines)]


class SeveritySettings(Settings):
    """`warning` and `critical`: any line that is reached; an alert below both is `info`, and none is ever lowered."""

    warning: Impacts = (Impact(kind="silent"), Impact(lost=0.05), Impact(times=2), Impact(seconds=300))
    critical: Impacts = (
        Impact(kind="silent", seconds=300),
        Impact(lost=0.5),
        Impact(lost=0.05, seconds=1800),
        Impact(times=10, seconds=60),
        Impact(times=2, seconds=1800),
    )


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
    """For a whole exchange."""


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
    give_up_s: PositiveSeconds = 86400
    """How long a notification is tried before it is set aside until the next start, so that the queue is bounded."""
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


def load_settings(file: Path | None, *, expand: bool = True) -> AlertSettings:
    """The settings in the YAML `file`, or the defaults; raises `ConfigError` naming the key and the nearest known one.

    `${NAME}` in an address or header is filled in from the environment, in which it must stand. Without `expand` it is
    refused: a file that nobody named must not send the environment anywhere.
    """
    if file is not None and not file.exists():
        raise ConfigError(f"no configuration of alerts `{file}`", "check the path given to `--alert-config`")
    # load_config reads any Settings; its signature names the subclass that most of its callers have
    settings = cast(AlertSettings, load_config(cast(type[PluginConfig], AlertSettings), file))
    filled = {
        name: _filled(sink, f"sinks.{name}", file, expand)
        for name in ("webhook", "alertmanager")
        if (sink := getattr(settings.sinks, name)) is not None
    }
    return settings.model_copy(update={"sinks": settings.sinks.model_copy(update=filled)})


def _filled(sink: WebhookSettings, key: str, file: Path | None, expand: bool) -> WebhookSettings:
    """The sink with the environment's values in its address and headers."""

    def fill(text: str, place: str) -> str:
        def value_of(found: re.Match[str]) -> str:
            name = found[1]
            if not expand:
                hint = f"name the file to have it filled in: `--alert-config {file}`"
                raise ConfigError(f"`{place}` in `{file}` asks for `${{{name}}}` of the environment", hint)
            if name not in os.environ:
                raise ConfigError(f"`{place}` in `{file}` asks for `${{{name}}}`, which is not set", f"export {name}")
            return os.environ[name].strip()

        value = _VARIABLE.sub(value_of, text)
        if not value.isprintable():
            raise ConfigError(f"bad value for `{place}` in `{file}`: it has a line break", "correct the value")
        return value

    url = fill(sink.url, f"{key}.url")
    try:
        _http(url)
    except ValueError as error:
        raise ConfigError(f"bad value for `{key}.url` in `{file}`: {error}", "correct the value") from None
    headers = {name: fill(value, f"{key}.headers.{name}") for name, value in sink.headers.items()}
    for name, value in headers.items():
        if wrong := _header(name, value):
            message = f"bad value for `{key}.headers.{printable(name)}` in `{file}`: {wrong}"
            raise ConfigError(message, "correct the header")
    return sink.model_copy(update={"url": url, "headers": headers})
