"""YAML in which a word means what was written: `on`, `yes`, `no`, `007` and `12:30` are text, and a key stands once.

Only `true`, `false`, `null`, and numbers in their shortest form (`1`, `-2.5`, `1e-3` is text that a number's field reads) are
anything but text: YAML 1.2's core schema without the spellings that two readers take differently.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What the YAML reader raises: ValueError for numbers and encodings, RecursionError for deep nesting."""


class _Loader(yaml.SafeLoader):
    """The safe loader with the rules above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys differ."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen and key != "<<":
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key `{key}` stands twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _number(_loader: _Loader, node: yaml.ScalarNode) -> Any:
    """The number, or the text where the number would be written in another way."""
    text = node.value
    kind = float if "." in text else int
    value = kind(text)
    return value if str(value) == text else text


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), [*"~nN", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), [*"tf"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_Loader.add_implicit_resolver("ocad/number", re.compile(r"^-?\d{1,400}(?:\.\d{1,400})?$"), [*"-0123456789"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\.inf$|^\.nan$"), [*"-+."])
_Loader.add_constructor("ocad/number", _number)


def load_yaml(text: str) -> Any:
    """The value that `text` holds; raises one of `NOT_YAML`."""
    return yaml.load(text, _Loader)
