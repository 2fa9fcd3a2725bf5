"""A plugin's settings as lines of help: key, default and meaning, read from its configuration model."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def describe_settings(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    """A pair for each setting of `model`: `section.key` and its meaning with type and default."""
    lines: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines += describe_settings(kind, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"default {_plain(default)}"
        lines.append((f"{prefix}{name}", f"{field.description or ''} [{_type_name(kind)}, {shown}]".strip()))
    return lines


def _type_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _plain(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return (
            "["
            + "; ".join(" ".join(f"{k}={v}" for k, v in item.model_dump().items() if v != "") for item in value)
            + "]"
        )
    return str(value)
