"""Configuration: YAML and `--set` into a model, and the exact words when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from ocad.config import GateSettings, PluginConfig, Settings, dump_config, load_config
from ocad.errors import ConfigError


class Training(Settings):
    epochs: int = Field(default=30, ge=1)
    learning_rate: float = 1e-3


class Example(PluginConfig):
    train: Training = Training()
    seasons: tuple[int, ...] = (1, 12)
    width: int | Literal["auto"] = "auto"
    members: Mapping[str, str | tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        if self.width == 0:
            raise ValueError("`width` is nothing")
        return self


def test_the_defaults_are_complete() -> None:
    assert load_config(Example, None).model_dump() == {
        "seed": 7,
        "gates": (),
        "train": {"epochs": 30, "learning_rate": 1e-3},
        "seasons": (1, 12),
        "width": "auto",
        "members": {},
    }


def test_overrides_win_over_the_file_and_the_last_override_wins(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text("seed: 1\ntrain:\n  epochs: 3\n  learning_rate: 0.1\n")
    config = load_config(Example, file, ["train.epochs=4", "train.epochs=5", "seasons=[2, 3]"])
    assert (config.seed, config.train, config.seasons) == (1, Training(epochs=5, learning_rate=0.1), (2, 3))


@pytest.mark.parametrize("content", ["", "# nothing but a comment\n", "{}\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, content: str) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(content)
    assert load_config(Example, file) == Example()


def test_what_is_dumped_is_loaded_again(tmp_path: Path) -> None:
    config = Example(seed=3, seasons=(5,), gates=(GateSettings(metric="mae", op="<", threshold=2.5, name="small"),))
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config, {"plugin": "example"}))
    values = yaml.safe_load(file.read_text())
    assert next(iter(values)) == "plugin"
    del values["plugin"]
    assert Example.model_validate(values) == config


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("train.epoch=5", "unknown configuration key `train.epoch` in `--set`", "did you mean `epochs`?"),
        ("trian.epochs=5", "unknown configuration key `trian` in `--set`", "did you mean `train`?"),
        (
            "x=5",
            "unknown configuration key `x` in `--set`",
            "known: `gates`, `members`, `seasons`, `seed`, `train`, `width`",
        ),
        ("train.epochs=many", "bad value for `train.epochs` in `--set`", "correct the value"),
        ("train.epochs=0", "bad value for `train.epochs` in `--set`", "correct the value"),
        ("train=5", "bad value for `train` in `--set`", "correct the value"),
        ("width=wide", "bad value for `width` in `--set`: ", "correct the value"),
        ("width=0", "bad value in `--set`: `width` is nothing", "correct the value"),
        ("members={a: {b: c}}", "bad value for `members.a` in `--set`: ", "correct the value"),
        ("gates=[{metric: mae, op: '=', threshold: 1}]", "bad value for `gates.0.op` in `--set`", "correct the value"),
        (
            "gates=[{metric: mae, op: <}]",
            "bad value for `gates.0.threshold` in `--set`: field required",
            "correct the value",
        ),
        (
            "gates=[{metric: mae, op: <, treshold: 1}]",
            "unknown configuration key `gates.0.treshold` in `--set`",
            "did you mean `threshold`?",
        ),
        ("train.epochs", "cannot read `--set train.epochs`", "write it as `--set section.key=value`"),
        ("=5", "cannot read `--set =5`", "write it as `--set section.key=value`"),
        ("train..epochs=5", "cannot read `--set train..epochs=5`", "write it as `--set section.key=value`"),
        ("seasons=[1,", "the value in `--set seasons=[1,` is not YAML", "quote it"),
        ("seed={a: 1, a: 2}", "the value in `--set seed={a: 1, a: 2}` is not YAML", "quote it"),
        ("seed=2026-13-41", "bad value for `seed` in `--set`: input should be a valid integer", "correct the value"),
        ("seed=&a [*a]", "bad value for `seed` in `--set`: input should be a valid integer", "correct the value"),
    ],
)
def test_an_override_that_does_not_fit_is_named(override: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Example, None, [override])
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"- a\n- b\n", "the configuration `FILE` is not a mapping", "write `key: value` lines"),
        (b"seed: 7\nepochs: 3\n", "unknown configuration key `epochs` in `FILE`",
         "known: `gates`, `members`, `seasons`, `seed`, `train`, `width`"),
        (b"seed: [7\n", "cannot read the configuration `FILE` (", "correct the YAML"),
        (b"seed: \xff\n", "cannot read the configuration `FILE` (", "correct the YAML"),
        (b"seed: seven\n", "bad value for `seed` in `FILE`: input should be a valid integer", "correct the value"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    file = tmp_path / "example.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(Example, file)
    assert caught.value.message.startswith(message.replace("FILE", str(file)))
    assert "\n" not in str(caught.value)
    assert caught.value.hint == hint


def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text("train:\n  epochs: 3\n")
    for override in ("train.epoch=5", "train.epochs=-1", "train=5", "seed.deep=1"):
        with pytest.raises(ConfigError, match="in `--set`"):
            load_config(Example, file, [override])


def test_nesting_that_no_reader_follows_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(Example, None, ["seed=" + "[" * 5000])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Example, tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"no configuration file `{tmp_path / 'none.yaml'}`: check the path given to `--config`"
    )


def complaint(overrides: list[str]) -> str | None:
    """What is wrong with `overrides`, None when they fit; any other error than ours is not caught."""
    try:
        load_config(Example, None, overrides)
    except ConfigError as error:
        return error.message
    return None


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=3))
def test_any_text_that_is_no_override_is_a_config_error(overrides: list[str]) -> None:
    assert complaint(overrides)


@given(st.integers(1, 10**6), st.floats(1e-9, 1e9), st.lists(st.integers(-9, 9), max_size=4))
def test_any_value_written_as_yaml_comes_back(epochs: int, rate: float, seasons: list[int]) -> None:
    overrides = [f"train.epochs={epochs}", f"train.learning_rate={rate!r}", f"seasons={seasons}"]
    config = load_config(Example, None, overrides)
    assert (config.train.epochs, config.train.learning_rate, list(config.seasons)) == (epochs, rate, seasons)


@given(
    st.sampled_from(["train.epochs", "train", "seed", "gates", "seasons", "none.of.these"]),
    st.text() | st.recursive(st.none() | st.booleans() | st.integers(), lambda x: st.lists(x, max_size=3)),
)
def test_any_value_fits_or_the_complaint_names_its_key(key: str, value: object) -> None:
    message = complaint([f"{key}={value}"])
    assert message is None or key.partition(".")[0] in message
