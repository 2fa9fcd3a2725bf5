"""The scale that every detector's score is in: evidence, in noise units of the link and metric.

A single row that is `x` robust deviations from what is normal has a score of `x`. Evidence that has a likelihood of its own,
several rows in a row or lost ones, is put on the same scale by `of_nats`. A score never saturates, and one alarm level
holds for all detectors; what calibration knows of a link may move its scale, never its shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ocad.errors import UsageError

ALARM = 8.0
"""The score from which a row is an alarm, unless told otherwise: as far out as a rolling median / MAD rule of 8."""
ALARM_NATS = 10.0
"""The log-likelihood ratio, in nats, that counts as much as `ALARM`: by chance once in some 20,000 rows at most (Wald 1945),
and two lost rows of three on a link that hardly ever loses one."""
SENSITIVITIES: Mapping[str, float] = {"low": 12.0, "normal": ALARM, "high": 5.0}
"""The alarm level by what an operator asks for."""
TO_SIGMA = 1.4826
"""Of a normal distribution the standard deviation is this many median absolute deviations."""
RARE = 1e-5
"""The share of normal rows of a link that may, each by itself, be an alarm: one in a week of a row every few minutes."""
_LEAST_FAR = 5.7
"""Deviations that a single row must have to be an alarm even where nothing far ever happens: 6e-9 of a normal distribution."""
_FEW_BLOCKS, _MANY_BLOCKS = 20, 80
_FEWEST_ROWS = 200
_USUAL = 0.3
"""The quantile of the blocks' largest rows that is that of a usual block: more than half of them may hold an incident."""
_PER_ROOT = ALARM / math.sqrt(ALARM_NATS)
_FEW_NATS = 0.01
"""Below it the scale is a straight line: the steepness of a root would show the last digits of a sum."""
_PER_NAT = _PER_ROOT / math.sqrt(_FEW_NATS)

Floats = NDArray[np.float64]


def of_nats(nats: Floats) -> Floats:
    """Noise units `(n,)` of log-likelihood ratios `(n,)` in nats, not below 0; grows with their root, as deviations do."""
    return np.where(nats < _FEW_NATS, _PER_NAT * nats, _PER_ROOT * np.sqrt(nats))


def of_nats_point(nats: float) -> float:
    """The same for one number."""
    return _PER_NAT * nats if nats < _FEW_NATS else _PER_ROOT * math.sqrt(nats)


def spike_gain(deviations: Floats) -> float:
    """What a single row's deviation counts on a link whose usual rows have these `deviations` `(n,)`, in the order of time.

    What `rarely_reached` says becomes `ALARM`. 1 where the rows are too few to say.
    """
    far = rarely_reached(deviations)
    return 1.0 if far is None else ALARM / max(far, _LEAST_FAR)


def rarely_reached(values: Floats) -> float | None:
    """What a share `RARE` of usual rows would reach, from some of them, `values` `(n,)` in the order of time; None for few.

    The largest of usual blocks of rows, of many blocks and of few, say how the largest grows with the number of rows, and
    that is drawn out (exponential tail, Gumbel). Incidents in less than two thirds of the blocks move nothing.
    """
    if len(values) < _FEWEST_ROWS:
        return None
    few, many = (
        float(np.quantile([block.max() for block in np.array_split(values, blocks)], _USUAL))
        for blocks in (_FEW_BLOCKS, _MANY_BLOCKS)
    )
    slope = max(few - many, 0.0) / math.log(_MANY_BLOCKS / _FEW_BLOCKS)
    return few + slope * max(0.0, math.log(-math.log(_USUAL) * _FEW_BLOCKS / len(values) / RARE))


def alarm_level(sensitivity: str | float) -> float:
    """The alarm level of `low`, `normal`, `high`, or of a number of noise units; raises `UsageError` for anything else."""
    if isinstance(sensitivity, str) and sensitivity in SENSITIVITIES:
        return SENSITIVITIES[sensitivity]
    try:
        level = float(sensitivity)
    except ValueError:
        level = math.nan
    if not 0 < level < math.inf:
        raise UsageError(
            f"no sensitivity `{sensitivity}`", f"give one of {', '.join(SENSITIVITIES)}, or a number of noise units"
        )
    return level
