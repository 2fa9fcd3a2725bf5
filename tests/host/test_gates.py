"""Gates: what passes, what does not, and a gate on something that nobody measured."""

from __future__ import annotations

import pytest

from ocad.config import GateSettings
from ocad.errors import ConfigError
from ocad.gates import OPERATORS, judge

METRICS = {"mae": 2.0, "skill": -0.5}


@pytest.mark.parametrize(
    ("op", "threshold", "passed"),
    [
        ("<", 2.0, False),
        ("<", 2.5, True),
        ("<=", 2.0, True),
        ("<=", 1.5, False),
        (">", 2.0, False),
        (">", 1.5, True),
        (">=", 2.0, True),
        (">=", 2.5, False),
    ],
)
def test_every_operator_on_and_beside_its_threshold(op: str, threshold: float, passed: bool) -> None:
    gate = GateSettings.model_validate({"metric": "mae", "op": op, "threshold": threshold})
    (result,) = judge([gate], METRICS)
    assert result.model_dump() == {
        "name": "mae",
        "metric": "mae",
        "op": op,
        "threshold": threshold,
        "observed": 2.0,
        "passed": passed,
    }


def test_every_operator_of_the_settings_is_known() -> None:
    kinds = GateSettings.model_fields["op"].annotation
    assert set(getattr(kinds, "__args__", ())) == set(OPERATORS)


def test_gates_keep_their_order_and_names() -> None:
    gates = [
        GateSettings(name="useful", metric="skill", op=">", threshold=0),
        GateSettings(metric="mae", op="<", threshold=3),
    ]
    assert [(result.name, result.passed) for result in judge(gates, METRICS)] == [("useful", False), ("mae", True)]


def test_a_recorded_result_is_judged_again() -> None:
    first = judge([GateSettings(name="small", metric="mae", op="<", threshold=3)], METRICS)
    assert judge(first, METRICS) == first
    (again,) = judge(first, {"mae": 4.0})
    assert (again.name, again.observed, again.passed) == ("small", 4.0, False)


def test_a_metric_that_is_not_measured_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        judge([GateSettings(metric="skil", op=">", threshold=0)], METRICS)
    assert str(caught.value) == "a gate names the metric `skil`, which is not measured: did you mean `skill`?"
    assert caught.value.exit_code == 2
