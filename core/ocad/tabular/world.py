"""The click world: users, items and pages whose click probability is known, for calibration to be checked against the truth.

A shown advert is clicked with probability `examined(position) · sigmoid(relevance)`: the position-based model of examination
(Craswell et al. 2008), with a relevance that has main effects, a latent taste of users for items, and interactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.tabular.temporal import DAY, HOUR, hour_of, weekday_of

CHUNK_ROWS = 1 << 18
START = 1_704_067_200
"""1 January 2024, a Monday, 00:00 UTC; the log covers the `DAYS` days from here."""
DAYS = 14
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
DEVICES = ("mobile", "desktop", "tablet")
CATEGORIES = (
    "books", "cars", "finance", "fashion", "food", "games", "garden", "health", "music", "sport", "toys", "travel"
)  # fmt: skip
REGIONS, SITES, POSITIONS, TASTES = 20, 40, 5, 4
EXAMINATION = 0.8
"""The probability that position k is looked at is k ** -EXAMINATION."""
BASE_LOGIT = -1.1

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class World:
    """Who and what exists; `rows` decides how many, `seed` decides everything else."""

    rows: int
    seed: int
    users: Mapping[str, NDArray[Any]]
    items: Mapping[str, NDArray[Any]]
    site_effect: NDArray[np.float64]
    device_category: NDArray[np.float64]
    age_category: NDArray[np.float64]

    @classmethod
    def create(cls, rows: int, seed: int) -> World:
        """A world fit for a log of `rows`: about a hundred rows for each user, a thousand for each item."""
        generator = np.random.default_rng([seed, 0])
        user_count = int(np.clip(rows // 100, 100, 100_000))
        item_count = int(np.clip(rows // 1000, 40, 5_000))
        taste_of_category = generator.normal(0, 1, (len(CATEGORIES), TASTES))
        category = generator.integers(0, len(CATEGORIES), item_count)
        users = {
            "age": generator.integers(0, len(AGES), user_count),
            "region": generator.integers(0, REGIONS, user_count),
            "home_device": generator.choice(len(DEVICES), user_count, p=(0.6, 0.3, 0.1)),
            "taste": generator.normal(0, 1, (user_count, TASTES)),
            "effect": generator.normal(0, 0.4, user_count),
        }
        items = {
            "category": category,
            "advertiser": generator.integers(0, max(8, item_count // 20), item_count),
            "taste": 0.8 * taste_of_category[category] + 0.6 * generator.normal(0, 1, (item_count, TASTES)),
            "effect": generator.normal(0, 0.5, item_count),
            "value": generator.lognormal(3, 0.6, item_count),
            "born": START - generator.integers(0, 60, item_count) * DAY,
        }
        return cls(
            rows,
            seed,
            users,
            items,
            site_effect=generator.normal(0, 0.3, SITES),
            device_category=generator.normal(0, 0.35, (len(DEVICES), len(CATEGORIES))),
            age_category=generator.normal(0, 0.3, (len(AGES), len(CATEGORIES))),
        )

    def chunks(self) -> Iterator[Columns]:
        """The log in the order of time, `CHUNK_ROWS` rows at a time, codes instead of words; see `log_columns`."""
        for number, first in enumerate(range(0, self.rows, CHUNK_ROWS)):
            yield self._chunk(first, min(CHUNK_ROWS, self.rows - first), np.random.default_rng([self.seed, 1, number]))

    def _chunk(self, first: int, count: int, generator: np.random.Generator) -> Columns:
        time = self._times(first, count, generator)
        user = _skewed(generator, count, len(self.users["age"]), 1.5)
        item = _skewed(generator, count, len(self.items["category"]), 1.3)
        site = _skewed(generator, count, SITES, 1.2)
        strays = generator.random(count) < 0.2
        device = np.where(strays, generator.integers(0, len(DEVICES), count), self.users["home_device"][user])
        position = generator.integers(1, POSITIONS + 1, count)
        item_age = (time - self.items["born"][item]) / DAY
        relevance = self._relevance(user, item, site, device, time, item_age)
        probability = position**-EXAMINATION / (1 + np.exp(-relevance))
        click = generator.random(count) < probability
        conversion = click & (generator.random(count) < 1 / (1 + np.exp(2.2 - self.items["effect"][item])))
        floor = np.round(generator.lognormal(2.5, 1, count), 2)
        paid = np.round(floor + generator.lognormal(2, 0.7, count) * (0.5 + probability), 2)
        item_age[generator.random(count) < 0.05] = np.nan  # a feature that is sometimes not known
        return {
            "timestamp": time,
            "user": user,
            "item": item,
            "site": site,
            "device": device,
            "position": position,
            "item_age_days": np.round(item_age, 2),
            "floor_price": floor,
            "paid_price": paid,
            "click": click.astype(np.int64),
            "conversion": conversion.astype(np.int64),
            "revenue": np.round(conversion * self.items["value"][item], 2),
            "true_probability": probability,
        }

    def _times(self, first: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Moments of rows `first` … of the whole log, more of them in the evening than at night."""
        share = np.sort((first + generator.random(count) * count) / self.rows) * DAYS
        hours = np.linspace(0, 24, 25)
        traffic = np.cumsum(np.append(0, 1 + 0.8 * np.sin((hours[:-1] - 9) / 24 * 2 * np.pi)))
        within = np.interp(share % 1, traffic / traffic[-1], hours * HOUR)
        return (START + np.floor(share) * DAY + np.minimum(within, DAY - 1)).astype(np.int64)

    def _relevance(
        self,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        site: NDArray[np.int64],
        device: NDArray[np.int64],
        time: NDArray[np.int64],
        item_age: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        category, age = self.items["category"][item], self.users["age"][user]
        taste = np.einsum("ij,ij->i", self.users["taste"][user], self.items["taste"][item]) / np.sqrt(TASTES)
        evening = 0.25 * np.sin((hour_of(time) - 14) / 24 * 2 * np.pi)
        weekend = 0.2 * (weekday_of(time) >= 5)
        effects = self.users["effect"][user] + self.items["effect"][item] + self.site_effect[site]
        crossed = self.device_category[device, category] + self.age_category[age, category]
        freshness = -0.25 * (np.log1p(item_age) - 3)
        relevance: NDArray[np.float64] = BASE_LOGIT + 0.9 * taste + effects + crossed + evening + weekend + freshness
        return relevance


def _skewed(generator: np.random.Generator, count: int, size: int, power: float) -> NDArray[np.int64]:
    """Numbers below `size`, low ones more often: `size` · u ** power."""
    return (size * generator.random(count) ** power).astype(np.int64)
