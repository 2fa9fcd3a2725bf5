"""YAML means what was written, and every block of it that the documentation prints is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ocad.catalogue import DataSource
from ocad.config import load_config
from ocad.tabular.settings import PrepareConfig
from ocad.tabular.spec import Features, Label
from ocad.yamls import NOT_YAML, load_yaml

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    (f"{path.name}:{place}", text)
    for path in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
    for place, text in enumerate(re.findall(r"^```ya?ml\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M))
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("yes", "yes"), ("no", "no"), ("off", "off"), ("True", "True"), ("true", True), ("007", "007"),
        ("1.50", "1.50"), ("1.5", 1.5), ("-3", -3), ("12:30", "12:30"), ("2026-01-01", "2026-01-01"), ("1_000", "1_000"),
        ("0x1F", "0x1F"), ("null", None), ("", None), ("1e-3", "1e-3"), ("'1'", "1"), (".inf", float("inf")),
    ],
)  # fmt: skip
def test_a_word_means_what_was_written(text: str, value: Any) -> None:
    assert load_yaml(text) == value
    assert type(load_yaml(text)) is type(value)
    assert load_yaml(f"{{on: {text}}}" if text else "{on: }") == {"on": value}


@pytest.mark.parametrize("written", ["yes", "no", "on", "1", "007", "1.50", "true", "True"])
def test_a_setting_that_is_text_keeps_its_spelling(written: str) -> None:
    config = load_config(PrepareConfig, None, [f"features.label.positive={written}"])
    assert config.features.label == Label(positive=written)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x:\n  b: 1\n  b: 1", "[{c: 1, c: 2}]"])
def test_a_key_stands_once(text: str) -> None:
    with pytest.raises(NOT_YAML, match="stands twice"):
        load_yaml(text)


@pytest.mark.parametrize(("place", "text"), BLOCKS, ids=[place for place, _ in BLOCKS])
def test_a_block_of_the_documentation_loads(place: str, text: str) -> None:
    values = load_yaml(text)
    if "path" in values:
        assert DataSource.model_validate({"name": "documented", **values})
    elif "features" in values:
        assert Features.model_validate(values["features"])
    else:
        assert isinstance(values, dict)
