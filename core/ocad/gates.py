"""Gates: the conditions on metrics that a version must meet before it can be promoted."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ocad.errors import ConfigError, nearest

if TYPE_CHECKING:
    from ocad.config import GateSettings
    from ocad_registry import GateResult

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def judge(gates: Iterable[GateSettings | GateResult], metrics: Mapping[str, float]) -> list[GateResult]:
    """Each gate with the value that was observed and whether it passed.

    Raises `ConfigError` when a gate names a metric that was not measured.
    """
    from ocad_registry import GateResult

    results = []
    for gate in gates:
        if gate.metric not in metrics:
            raise ConfigError(
                f"a gate names the metric `{gate.metric}`, which is not measured", nearest(gate.metric, metrics)
            )
        observed = float(metrics[gate.metric])
        results.append(
            GateResult(
                name=gate.name or gate.metric,
                metric=gate.metric,
                op=gate.op,
                threshold=gate.threshold,
                observed=observed,
                passed=OPERATORS[gate.op](observed, gate.threshold),
            )
        )
    return results
