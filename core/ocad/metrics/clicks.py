"""Every metric of a click-through model under the names that the registry stores."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ocad.metrics.business import business_metrics
from ocad.metrics.probability import Reliability, accuracy, brier, logloss, normalized_entropy, wll
from ocad.metrics.ranking import Thresholds, gauc, mixed_groups, ndcg

NDCG_AT = 10


def click_metrics(
    label: ArrayLike,
    probability: ArrayLike,
    raw_probability: ArrayLike | None = None,
    *,
    group: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    price: ArrayLike | None = None,
    value: float | None = None,
    prefix: str = "",
) -> dict[str, float]:
    """The metrics of `(n,)` rows, each finite: `auc pr_auc average_precision logloss normalized_entropy wll accuracy brier
    ece mce`.

    `ece_mass` and `mce_mass` have bins of equal mass, the others of equal width. With `raw_probability`, the ones before
    calibration follow with `raw_`. With `group`, `gauc` and `ndcg_at_10` where a group holds both classes (neither is
    weighted by `weight`). With `price` (and the `value` of a click), those of `business_metrics`. `prefix` comes before
    every name, `val_` for validation. Raises `DataError` on rows that cannot be measured, one class only included.
    """
    measured = _measure(label, probability, group, weight)
    if raw_probability is not None:
        raw = _measure(label, raw_probability, group, weight)
        measured |= {f"raw_{name}": figure for name, figure in raw.items()}
    if price is not None:
        measured |= business_metrics(label, probability, price, value)
    return {f"{prefix}{name}": figure for name, figure in measured.items()}


def _measure(
    label: ArrayLike, probability: ArrayLike, group: ArrayLike | None, weight: ArrayLike | None
) -> dict[str, float]:
    thresholds = Thresholds.of(label, probability, weight)
    width = Reliability.of(label, probability, mass="width", weight=weight)
    mass = Reliability.of(label, probability, mass="mass", weight=weight)
    measured = {
        "auc": thresholds.auc,
        "pr_auc": thresholds.pr_auc,
        "average_precision": thresholds.average_precision,
        "logloss": logloss(label, probability, weight),
        "normalized_entropy": normalized_entropy(label, probability, weight),
        "wll": wll(label, probability, weight),
        "accuracy": accuracy(label, probability, weight),
        "brier": brier(label, probability, weight),
        "ece": width.expected_error,
        "mce": width.largest_error,
        "ece_mass": mass.expected_error,
        "mce_mass": mass.largest_error,
    }
    if group is not None and mixed_groups(label, group):
        measured["gauc"] = gauc(label, probability, group)
        measured[f"ndcg_at_{NDCG_AT}"] = ndcg(label, probability, group, NDCG_AT)
    return measured
