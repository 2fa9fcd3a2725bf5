"""Configuration: pydantic models that refuse unknown keys, filled from YAML and `--set a.b=value`, in that order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ocad.errors import ConfigError, nearest
from ocad.yamls import NOT_YAML, load_yaml


class Settings(BaseModel):
    """Base of every configuration model: frozen, an unknown key is an error, and a number or `true` may stand for text."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _written(cls, value: Any, info: ValidationInfo) -> Any:
        """`positive: true` means the text `true` where the field is text."""
        if not isinstance(value, bool) or info.field_name is None:
            return value
        kind = cls.model_fields[info.field_name].annotation
        return str(value).lower() if kind in (str, str | None) else value


class GateSettings(Settings):
    """A condition that a version must meet to be promoted: `metric op threshold`."""

    metric: str
    op: Literal["<", "<=", ">", ">="]
    threshold: float
    name: str = ""


class PluginConfig(Settings):
    """What every plugin's configuration has; a plugin adds its own sections."""

    seed: int = 7
    gates: tuple[GateSettings, ...] = ()


Config = TypeVar("Config", bound=PluginConfig)


def load_config(model: type[Config], file: Path | None, overrides: Iterable[str] = ()) -> Config:
    """`model` filled from the YAML `file` and then from `overrides` (`train.epochs=5`; values are YAML).

    Raises `ConfigError` naming the key, the file and the nearest known key.
    """
    values = _read_yaml(file) if file else {}
    overrides = tuple(overrides)
    for override in overrides:
        _assign(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(model, error, values, file, overrides) from None


def dump_config(config: BaseModel, extra: Mapping[str, Any] | None = None) -> str:
    """The complete, resolved configuration as YAML, `extra` keys first."""
    return yaml.safe_dump({**(extra or {}), **config.model_dump(mode="json")}, sort_keys=False)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = load_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file `{file}`", "check the path given to `--config`") from None
    except (OSError, *NOT_YAML) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the configuration `{file}` ({reason})", "correct the YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration `{file}` is not a mapping", "write `key: value` lines")
    return values


def _assign(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"cannot read `--set {override}`", "write it as `--set section.key=value`")
    try:
        value: Any = load_yaml(text)
    except NOT_YAML:
        raise ConfigError(f"the value in `--set {override}` is not YAML", "quote it") from None
    for key in keys[:-1]:
        child = values.get(key)
        if not isinstance(child, dict):
            child = values[key] = {}
        values = child
    values[keys[-1]] = value


def written_path(complaint: ErrorDetails, values: Any) -> str:
    """The keys of `values`, joined by points, that lead to where pydantic found fault; "" for the whole.

    It names positions where a mapping was written that stands for a list, and members of unions: nobody wrote those.
    """
    path = []
    for part in complaint["loc"]:
        if part in (range(len(values)) if isinstance(values, list) else values if isinstance(values, dict) else ()):
            values = values[part]
            path.append(str(part))
    return ".".join([*path, str(complaint["loc"][-1])] if complaint["type"] == "missing" else path)


def _explain(
    model: type[BaseModel], error: ValidationError, values: Any, file: Path | None, overrides: tuple[str, ...]
) -> ConfigError:
    """The complaint that helps most: a misspelt key comes before the required key that is missing because of it."""
    complaints = error.errors()
    first = next((item for item in complaints if item["type"] == "extra_forbidden"), complaints[0])
    key = written_path(first, values)
    place = _origin(key, file, overrides)
    if first["type"] == "extra_forbidden":
        *parents, last = map(str, first["loc"])
        hint = nearest(last, _fields_at(model, parents))
        return ConfigError(f"unknown configuration key `{key}` in `{place}`", hint)
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(
        f"bad value {f'for `{key}` ' if key else ''}in `{place}`: {message[:1].lower()}{message[1:]}",
        "correct the value",
    )


def _origin(key: str, file: Path | None, overrides: tuple[str, ...]) -> str:
    """Where the value of `key` comes from: an override that sets it, or a part or the whole of it, else the file."""
    for override in overrides:
        path = override.partition("=")[0].strip()
        if f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}."):
            return "--set"
    return str(file) if file else "--set"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys known at `path`, whose parts are fields and the positions in lists of them."""
    for part in path:
        field: FieldInfo | None = model.model_fields.get(part)
        if field:
            nested = _models_in(field.annotation)
            if len(nested) != 1:
                return []
            model = nested[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `Inner`, `tuple[Inner, ...]` or `Inner | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]
