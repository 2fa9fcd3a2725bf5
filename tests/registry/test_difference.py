"""What `diff` says and what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from ocad_registry import DataReference, GateResult, Registry

from .conftest import Publisher


def changes(registry: Registry) -> list[tuple[str, str, Any, Any, float | None]]:
    found = registry.diff("m@1.0.0", "m@1.1.0")
    return [(change.section, change.name, change.first, change.second, change.delta) for change in found]


def test_every_section_is_compared_by_name(registry: Registry, publish: Publisher) -> None:
    gate = GateResult(name="mase", metric="mase", op="<", threshold=1, observed=0.5, passed=True)
    data = DataReference(name="udp_echo", fingerprint="a" * 64, rows=100, splits={"train": 80, "test": 20})
    later = DataReference(name="udp_echo", fingerprint="b" * 64, rows=120, splits={"train": 100, "test": 20})
    same = {"name": "m", "tags": {"team": "radio"}}
    publish(
        **same,
        params={"epochs": 30, "net": {"channels": [32, 32]}, "old": 1},
        data=data,
        gates=[gate],
        metrics={"a": 1.0},
    )
    stricter = gate.model_copy(update={"threshold": 0.75})
    publish(
        **same,
        params={"epochs": 60, "net": {"channels": [64]}, "new": None},
        data=later,
        gates=[stricter],
        metrics={"a": 0.5, "b.c": 2.0},
        environment={"python": "3.12"},
        description="again",
    )  # fmt: skip
    assert changes(registry) == [
        ("description", "", "", "again", None),
        ("params", "epochs", 30, 60, 30.0),
        ("params", "net.channels", [32, 32], [64], None),
        ("params", "old", 1, None, None),
        ("metrics", "a", 1.0, 0.5, -0.5),
        ("metrics", "b.c", None, 2.0, None),
        ("gates", "mase.threshold", 1.0, 0.75, -0.25),
        ("data", "fingerprint", "a" * 64, "b" * 64, None),
        ("data", "rows", 100, 120, 20.0),
        ("data", "splits.train", 80, 100, 20.0),
        ("environment", "python", None, "3.12", None),
    ]


def test_numbers_names_and_times_of_versions_are_no_difference(registry: Registry, publish: Publisher) -> None:
    publish(name="m")
    publish(name="m")
    assert changes(registry) == []


@pytest.mark.parametrize(("first", "second"), [(1, True), (0, False), (1, "1"), (None, False)])
def test_values_of_another_type_differ(registry: Registry, publish: Publisher, first: Any, second: Any) -> None:
    publish(name="m", params={"x": first})
    publish(name="m", params={"x": second})
    assert changes(registry) == [("params", "x", first, second, None)]


def test_other_bytes_are_a_difference(registry: Registry, publish: Publisher, tmp_path: Any) -> None:
    publish(name="m")
    (tmp_path / "weights.bin").write_bytes(b"other")
    publish(name="m")
    assert [change[:2] for change in changes(registry)] == [
        ("files", "weights.bin.size"),
        ("files", "weights.bin.sha256"),
    ]
