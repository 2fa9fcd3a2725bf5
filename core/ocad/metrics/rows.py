"""The arrays that every metric starts from, checked once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.errors import DataError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def check_labels(label: ArrayLike) -> Flags:
    """`label` `(n,)` as booleans. Raises `DataError` where there are no rows or a label is neither 0 nor 1."""
    values = np.asarray(label).reshape(-1)
    if values.size == 0:
        raise DataError("there are no rows to measure", "give a part with rows in it")
    positive: Flags = values == 1
    if not (positive | (values == 0)).all():
        wrong = values[~(positive | (values == 0))][0]
        raise DataError(
            f"the label `{wrong}` is neither 0 nor 1", "map labels to 0 and 1, or set the label's threshold"
        )
    return positive


def check_classes(positive: Flags) -> None:
    """Raises `DataError` when all labels are of one class: nothing can be ranked or calibrated then."""
    if positive.all() or not positive.any():
        kind = "positive" if positive.all() else "negative"
        raise DataError(f"all {positive.size} labels are {kind}", "give a part that holds both classes")


def check_values(name: str, values: ArrayLike, rows: int) -> Floats:
    """`values` as `(rows,)` float64. Raises `DataError` when their number differs or one is not finite."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size != rows:
        raise DataError(f"{array.size} values of `{name}` for {rows} labels", "give one for each row")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DataError(f"`{name}` is {array[row]} in row {row}", "look for a diverged model or missing input values")
    return array


def check_probabilities(probability: ArrayLike, rows: int) -> Floats:
    """`probability` as `(rows,)` float64. Raises `DataError` when one lies outside 0 to 1."""
    array = check_values("probability", probability, rows)
    if array.min() < 0 or array.max() > 1:
        raise DataError("a probability lies outside 0 to 1", "give probabilities, not log-odds")
    return array


def check_weights(weight: ArrayLike | None, rows: int) -> Floats | None:
    """`weight` as `(rows,)` float64, None for equal weights. Raises `DataError` when one is negative or all are zero."""
    if weight is None:
        return None
    array = check_values("weight", weight, rows)
    if array.min() < 0 or array.max() == 0:
        raise DataError("weights must be zero or more, and one above zero", "correct the weight column")
    return array
