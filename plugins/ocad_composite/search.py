"""The search for an alarm rule: precision first, weights pulled towards equal, flat optima preferred.

Random rules are tried on cached surprises, then small changes of the best one; each of the last is judged together with
rules whose levels are a tenth lower and higher, so that a rule that only just works does not win. Everything is repeated
without each block of time in turn, and the alarms in the block left out give the honest estimate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from ocad.detection.events import EventCounts
from ocad.detection.rule import AlarmRule

if TYPE_CHECKING:
    from ocad_composite.config import SearchSettings
    from ocad_composite.evidence import Evidence

_FINALISTS = 12
"""The random rules that are judged a second time, with their neighbours."""
_POOL = 4
"""The rules that are changed step by step, each by itself."""
_LEVELS = (0.9, 1.0, 1.1)
_CAPS = (3.0, 4.0, 6.0, 8.0, 12.0)
_WINDOWS = (1, 3, 5, 8, 12, 20)
_PATIENCE = (2, 3, 5, 8, 12, 20)
_HIGHEST = 20.0
"""A level above it is never reached."""

Merit = tuple[float, float, float]
Judge = Callable[[AlarmRule], Merit]


@dataclass(frozen=True, slots=True)
class Found:
    """The best rule, what it does where it was chosen, and what rules chosen in the same way do elsewhere."""

    rule: AlarmRule
    counts: EventCounts
    held_out: EventCounts
    """Of the blocks of time, each under the rule that was chosen without it."""
    table: list[dict[str, Any]] = field(default_factory=list)
    """The best rules of the random search with what they did, the best first."""


def merit(counts: EventCounts, rule: AlarmRule, settings: SearchSettings) -> Merit:
    """Higher is better: whether precision, recall and false-positive rate are as wanted, then F1, else F0.5.

    Precision alone would choose, where it can only be had so, a rule that finds next to nothing; F0.5 weighs it double.
    """
    metrics = counts.metrics()
    size = len(rule.weights)
    apart = sum(abs(weight - 1 / size) for weight in rule.weights) / 2
    wanted = metrics.event_precision >= settings.precision and metrics.event_recall >= settings.recall
    if wanted and metrics.point_fpr <= settings.point_fpr:
        return 1.0, metrics.event_f1 - settings.pull * apart, metrics.event_precision
    excess = max(0.0, metrics.point_fpr - settings.point_fpr)
    weighed = 4 * metrics.event_recall + metrics.event_precision
    half = 5 * metrics.event_precision * metrics.event_recall / weighed if weighed else 0.0
    return 0.0, half - excess - settings.pull * apart, metrics.event_precision


def search(
    evidence: Evidence, start: AlarmRule, settings: SearchSettings, seed: int, advance: Callable[[], None]
) -> Found:
    """The best rule for `evidence`, from `start` and random ones; the same seed finds the same.

    `advance` is called `steps_of(settings)` times.
    """
    generator = np.random.default_rng(seed)
    folds = range(settings.folds)
    rules = [start, *(_random(generator, len(start.weights), start.rest) for _ in range(settings.candidates))]
    counted: list[list[EventCounts]] = []
    for rule in rules:
        counted.append(evidence.count(rule, folds))
        advance()

    def choose(kept: Sequence[int]) -> AlarmRule:
        """The rule that the blocks `kept` alone lead to."""
        tried = zip(rules, counted, strict=True)
        first = [merit(_sum([counts[fold] for fold in kept]), rule, settings) for rule, counts in tried]
        order = sorted(range(len(rules)), key=first.__getitem__, reverse=True)[:_FINALISTS]
        return _refine(
            [rules[place] for place in order], _judge(evidence, settings, kept), settings, generator, advance
        )

    best = choose(folds)
    held_out = EventCounts()
    for fold in folds:
        held_out += _sum(evidence.count(choose([other for other in folds if other != fold]), [fold]))
    return Found(best, _sum(evidence.count(best, folds)), held_out, _table(rules, counted, settings))


def steps_of(settings: SearchSettings) -> int:
    """How often `search` advances."""
    return 1 + settings.candidates + (settings.folds + 1) * settings.steps


def summary(counts: EventCounts) -> dict[str, float]:
    """The event metrics by name, and what they were counted from."""
    metrics = dataclasses.asdict(counts.metrics())
    return metrics | {"found": counts.found, "missed": counts.missed, "right": counts.right, "wrong": counts.wrong}


def _judge(evidence: Evidence, settings: SearchSettings, kept: Sequence[int]) -> Judge:
    """The merit in the blocks `kept` of a rule together with its lower and higher neighbour."""

    def judge(rule: AlarmRule) -> Merit:
        around = [evidence.count(_scaled(rule, level), kept) for level in _LEVELS]
        return merit(_sum([counts for near in around for counts in near]), rule, settings)

    return judge


def _refine(
    rules: Sequence[AlarmRule],
    judge: Judge,
    settings: SearchSettings,
    generator: np.random.Generator,
    advance: Callable[[], None],
) -> AlarmRule:
    """The best that small changes make of the best few of `rules`, each of which goes its own way uphill."""
    pool = sorted(((judge(rule), rule) for rule in rules), key=itemgetter(0), reverse=True)[:_POOL]
    for step in range(settings.steps):
        place = step % len(pool)
        changed = _changed(generator, pool[place][1])
        reached = judge(changed)
        if reached >= pool[place][0]:  # as good counts: it walks over flat ground
            pool[place] = reached, changed
        advance()
    return max(pool, key=itemgetter(0))[1]


def _random(generator: np.random.Generator, size: int, rest: int) -> AlarmRule:
    on = generator.uniform(0.8, 4.0)
    n = int(generator.choice(_WINDOWS))
    return _made(
        weights=generator.dirichlet(np.full(size, 4.0)).tolist(),
        caps=[float(generator.choice(_CAPS))] * size,
        thresholds=[generator.uniform(1.0, 4.0)] * size,
        agreement=int(generator.integers(1, size + 1)),
        on=on,
        instant=on + generator.exponential(2.0),
        k=max(1, math.ceil(n * generator.uniform(0.2, 1.0))),
        n=n,
        off=on * generator.uniform(0.2, 0.95),
        m=int(generator.choice(_PATIENCE)),
        rest=rest,
    )


def _changed(generator: np.random.Generator, rule: AlarmRule) -> AlarmRule:
    """`rule` with one to three of its values a little different."""
    values = rule.to_json() | {name: list(getattr(rule, name)) for name in ("weights", "caps", "thresholds")}
    size = len(rule.weights)
    for _ in range(int(generator.integers(1, 4))):
        member = int(generator.integers(size))
        match int(generator.integers(8)):
            case 0:
                values["weights"][member] = max(0.01, values["weights"][member]) * math.exp(generator.normal(0, 0.5))
            case 1:
                values["caps"][member] = float(generator.choice(_CAPS))
            case 2:
                values["thresholds"][member] = float(np.clip(values["thresholds"][member] + generator.normal(), 0.5, 8))
            case 3:
                values["agreement"] = int(np.clip(values["agreement"] + generator.choice([-1, 1]), 1, size))
            case 4:
                factor = math.exp(generator.normal(0, 0.2))
                values |= {name: values[name] * factor for name in ("on", "instant", "off")}
            case 5:
                values["instant"] = values["on"] + (values["instant"] - values["on"]) * math.exp(
                    generator.normal(0, 0.5)
                )
            case 6:
                values["n"] = max(1, values["n"] + int(generator.integers(-3, 4)))
                values["k"] = int(np.clip(values["k"] + generator.integers(-1, 2), 1, values["n"]))
            case _:
                values["off"] = min(values["on"], values["off"] * math.exp(generator.normal(0, 0.3)))
                values["m"] = max(1, values["m"] + int(generator.integers(-2, 3)))
    return _made(**values)


def _scaled(rule: AlarmRule, level: float) -> AlarmRule:
    levels = {name: level * getattr(rule, name) for name in ("on", "instant", "off")}
    return rule if level == 1 else dataclasses.replace(rule, **levels)


def _made(**values: Any) -> AlarmRule:
    """The rule of `values`, its numbers rounded to what a person reads, its weights adding up to 1."""
    weights = np.asarray(values["weights"]) / sum(values["weights"])
    weights = weights.round(3)
    weights[weights.argmax()] += 1 - weights.sum()
    lists = {name: [round(value, 2) for value in values[name]] for name in ("caps", "thresholds")}
    levels = {name: round(min(values[name], _HIGHEST), 3) for name in ("on", "instant", "off")}
    return AlarmRule.from_json(values | lists | levels | {"weights": weights.round(3).tolist()})


def _table(
    rules: Sequence[AlarmRule], counted: Sequence[Sequence[EventCounts]], settings: SearchSettings, rows: int = 20
) -> list[dict[str, Any]]:
    totals = [_sum(counts) for counts in counted]
    order = sorted(range(len(rules)), key=lambda place: merit(totals[place], rules[place], settings), reverse=True)
    return [{"rule": rules[place].to_json(), **summary(totals[place])} for place in order[:rows]]


def _sum(counts: Sequence[EventCounts]) -> EventCounts:
    return sum(counts, EventCounts())
