"""The search for an alarm rule: weights on a simplex, one level, one hold-down; it must beat the plain rule to replace it.

Rules come from a fixed grid, so that the seed decides about little. What a rule is worth is the mean over resamples of
the labelled blocks (bagging, Breiman 1996): the rule that wins most of them is taken. Whether it is better than the plain
rule is asked of blocks that did not choose it, paired, with an interval.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.events import EventCounts
from ocad.detection.labelled import Labelled
from ocad.detection.rule import AlarmRule

PARTS = 4
"""Weights of the grid are multiples of one in so many."""
LEVELS = (5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 17.0, 20.0)
HOLDS = ((1, 1), (2, 3), (3, 5))
_INSTANT = 1.75
"""Of the level, what alone begins an alarm where several rows are asked for."""
RESAMPLES = 200
_SHARE = 0.95
"""The share of resamples in which a rule must be better to be called so."""
_MOST_MEMBERS = 6

Table = NDArray[np.int64]
"""Counts `(rules, segments, 4)`: found, missed, right and wrong."""


@dataclass(frozen=True, slots=True)
class Found:
    """The rule to use, why, and what it does."""

    rule: AlarmRule
    replaced: bool
    """Whether the plain rule was beaten."""
    counts: EventCounts
    """Where it was chosen."""
    held_out: EventCounts
    """Of blocks of time under rules that were chosen without them, or of the plain rule where it stays."""
    gain: tuple[float, float, float]
    """F1 of rules chosen without the blocks that they are judged on, less that of the plain rule: mean, and the inner 90 %."""
    table: list[dict[str, Any]] = field(default_factory=list)
    """The best rules of the grid with what they did, the best first."""


def search(
    labelled: Labelled,
    plain: AlarmRule,
    folds: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
    levels: Sequence[float] = LEVELS,
) -> Found:
    """The best rule for `labelled`, or `plain` where none is shown to be better; `advance` is called once a rule.

    Without incidents `plain` stays.
    """
    rules = [plain, *grid(plain, levels)]
    per_rule = []
    for rule in rules:
        per_rule.append(labelled.count(rule))
        advance()
    table = np.array([[(one.found, one.missed, one.right, one.wrong) for one in counts] for counts in per_rule])
    fold_of = np.array([segment.fold for segment in labelled.segments])
    generator = np.random.default_rng(seed)
    held_out = np.empty((len(labelled.segments), 4), np.int64)
    for fold in range(folds):
        inside = fold_of == fold
        if inside.any() and not inside.all():
            held_out[inside] = table[_bagged(rules, table[:, ~inside], generator), inside]
        else:
            held_out[inside] = table[0, inside]
    gain = _gain(held_out, table[0], generator)
    better = gain[1] > 0
    best = _bagged(rules, table, generator) if better else 0
    outside = _as_counts(held_out) if better else _sum(per_rule[0])
    return Found(rules[best], better, _sum(per_rule[best]), outside, gain, _best(rules, per_rule))


def steps_of(members: int, levels: Sequence[float] = LEVELS) -> int:
    """How often `search` advances."""
    return 1 + len(mixtures(members)) * len(levels) * len(HOLDS)


def grid(plain: AlarmRule, levels: Sequence[float] = LEVELS) -> list[AlarmRule]:
    """The rules that are tried: every mixture of members in quarters, every level and hold-down."""
    found = []
    for weights, level, (k, n) in itertools.product(mixtures(len(plain.weights)), levels, HOLDS):
        instant = level if k == 1 else _INSTANT * level
        changes = {"weights": weights, "on": level, "instant": instant, "k": k, "n": n, "off": 0.75 * level}
        found.append(dataclasses.replace(plain, **changes))  # type: ignore[arg-type]
    return found


def mixtures(members: int) -> list[tuple[float, ...]]:
    """Weights of so many members in quarters that add up to 1; of many members only each alone and all alike."""
    if members > _MOST_MEMBERS:
        alone = [tuple(float(other == one) for other in range(members)) for one in range(members)]
        return [*alone, (1 / members,) * members]
    places = itertools.combinations_with_replacement(range(members), PARTS)
    return [tuple(chosen.count(one) / PARTS for one in range(members)) for chosen in places]


def summary(counts: EventCounts) -> dict[str, float]:
    """The event metrics by name, and what they were counted from."""
    metrics = dataclasses.asdict(counts.metrics())
    return metrics | {"found": counts.found, "missed": counts.missed, "right": counts.right, "wrong": counts.wrong}


def _bagged(rules: Sequence[AlarmRule], table: Table, generator: np.random.Generator) -> int:
    """The place of the rule that wins most resamples of the segments of `table`; ties go to the one nearest to the first."""
    draws = generator.multinomial(table.shape[1], np.full(table.shape[1], 1 / table.shape[1]), RESAMPLES)
    scores = _f1(np.einsum("bs,rsc->brc", draws, table))
    distance = np.array([_distance(rule, rules[0]) for rule in rules])
    wins = np.bincount([np.lexsort((distance, -row.round(6)))[0] for row in scores], minlength=len(rules))
    return int(np.lexsort((distance, -wins))[0])


def _gain(held_out: Table, plain: Table, generator: np.random.Generator) -> tuple[float, float, float]:
    """The paired difference of F1 over resamples of the segments `(s, 4)`: mean, and the bounds of its inner 90 %."""
    size = len(plain)
    draws = generator.multinomial(size, np.full(size, 1 / size), 5 * RESAMPLES)
    differences = _f1(draws @ held_out) - _f1(draws @ plain)
    low, high = np.quantile(differences, (1 - _SHARE, _SHARE))
    return float(differences.mean()), float(low), float(high)


def _f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of event precision and recall from counts `(…, 4)`."""
    found, missed, right, wrong = (counts[..., place].astype(np.float64) for place in range(4))
    precision = right / np.maximum(right + wrong, 1)
    recall = found / np.maximum(found + missed, 1)
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, 1e-12))


def _distance(rule: AlarmRule, plain: AlarmRule) -> float:
    apart = sum(abs(left - right) for left, right in zip(rule.weights, plain.weights, strict=True))
    return apart + abs(math.log(rule.on / plain.on)) + (rule.k != plain.k)


def _as_counts(table: Table) -> EventCounts:
    found, missed, right, wrong = map(int, table.sum(axis=0))
    return EventCounts(found, missed, right, wrong)


def _best(
    rules: Sequence[AlarmRule], per_rule: Sequence[Sequence[EventCounts]], rows: int = 20
) -> list[dict[str, Any]]:
    totals = [_sum(counts) for counts in per_rule]
    order = sorted(range(len(rules)), key=lambda place: -totals[place].metrics().event_f1)
    return [{"rule": rules[place].to_json(), **summary(totals[place])} for place in order[:rows]]


def _sum(counts: Sequence[EventCounts]) -> EventCounts:
    return sum(counts, EventCounts())
