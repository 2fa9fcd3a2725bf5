"""What impressions and clicks are worth. Prices and values are in one currency; a price is that of one impression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ocad.errors import DataError
from ocad.metrics.rows import check_labels, check_probabilities, check_values


def ctr(label: ArrayLike) -> float:
    """Clicks per impression."""
    return float(check_labels(label).mean())


def revenue(label: ArrayLike, value: float) -> float:
    """Clicks times the `value` of a click."""
    return float(check_labels(label).sum() * value)


def roas(label: ArrayLike, price: ArrayLike, value: float) -> float:
    """Return on ad spend: revenue per unit of money paid. Raises `DataError` where nothing was paid."""
    spend = float(check_values("price", price, np.size(label)).sum())
    if spend <= 0:
        raise DataError("the prices sum to nothing, so there is no return on them", "correct the price column")
    return revenue(label, value) / spend


def ecpm(label: ArrayLike, value: float) -> float:
    """Revenue per thousand impressions."""
    return 1000.0 * revenue(label, value) / np.size(label)


def business_metrics(
    label: ArrayLike, probability: ArrayLike, price: ArrayLike, value: float | None = None
) -> dict[str, float]:
    """`ctr`, `revenue`, `roas`, `ecpm` of all impressions, and with `bid_` of those that bidding by the model would win.

    A second-price auction replayed (Zhang et al. 2014, iPinYou benchmark): the bid is probability times the `value` of a
    click, and an impression is won, at its market `price`, where the bid reaches it. Without `value` a click is worth what
    the log paid for one, so that `roas` is 1 and `bid_roas` says how much better the model buys. `bid_share` is the share
    won; the other `bid_` figures are absent where nothing is won or what is won costs nothing.
    """
    positive = check_labels(label)
    prices = check_values("price", price, positive.size)
    if value is None:
        value = float(prices.sum() / max(1, positive.sum()))
    won = check_probabilities(probability, positive.size) * value >= prices
    measured = _figures(positive, prices, value) | {"bid_share": float(won.mean())}
    if prices[won].sum() > 0:
        measured |= {f"bid_{name}": figure for name, figure in _figures(positive[won], prices[won], value).items()}
    return measured


def _figures(label: ArrayLike, price: ArrayLike, value: float) -> dict[str, float]:
    return {
        "ctr": ctr(label),
        "revenue": revenue(label, value),
        "roas": roas(label, price, value),
        "ecpm": ecpm(label, value),
    }
