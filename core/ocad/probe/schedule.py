"""What happens on the testbed and when: written down, from a seed, before anything is recorded."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ocad.config import Settings
from ocad.errors import DataError

IncidentKind = Literal["congestion", "burst", "flap"]
KINDS: tuple[IncidentKind, ...] = ("congestion", "burst", "flap")


class Link(Settings):
    """The shaped direction of the link: a token bucket (tc-tbf) with a queue that holds `queue_ms` of traffic."""

    rate_mbit: float = 20.0
    bucket_bytes: int = 4_000
    queue_ms: float = 60.0


class Probing(Settings):
    """How the link is measured."""

    rate_hz: float = 60.0
    timeout_s: float = 1.0


class Traffic(Settings):
    """Cross traffic: batches of packets at Poisson times; `share` is the load offered in each step, 1 = the link's rate."""

    packet_bytes: int = 1_200
    mean_batch_packets: float = 6.0
    step_s: float = 0.25
    share: tuple[float, ...]


class Contention(Settings):
    """`workers` processes that keep the CPU busy; part of normal operation, not an incident."""

    start_s: float
    end_s: float
    workers: int = 2


class Incident(Settings):
    """What the labels mark; `size` is the share of the link's rate that congestion leaves, or that a burst adds as load."""

    start_s: float
    end_s: float
    kind: IncidentKind
    size: float = 0.0


class Schedule(Settings):
    """A whole recording; times are seconds from its start."""

    seed: int
    duration_s: float
    day_s: float
    """The period of the rhythm: a day, compressed."""
    link: Link = Link()
    probing: Probing = Probing()
    traffic: Traffic
    contention: tuple[Contention, ...]
    incidents: tuple[Incident, ...]

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def make_schedule(seed: int, duration: float, day: float = 120.0, incident_every: float = 38.0) -> Schedule:
    """A schedule of `duration` seconds: the same seed gives the same one.

    Incidents take turns in equal slots of about `incident_every` seconds, so none overlap and every part of the
    recording has each kind.
    """
    source = random.Random(seed)
    return Schedule(
        seed=seed,
        duration_s=duration,
        day_s=day,
        traffic=Traffic(share=_daily_load(source, duration, day, step=0.25)),
        contention=_contention(source, duration),
        incidents=_incidents(source, duration, incident_every),
    )


def read_schedule(path: Path) -> Schedule:
    """The schedule in the file `path`; raises `DataError` when there is none or it does not fit."""
    try:
        return Schedule.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no schedule `{path}`", "write one with `--plan` and commit it") from None
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read the schedule `{path}` ({reason})", "write it again with `--plan`") from None


def _daily_load(source: random.Random, duration: float, day: float, step: float) -> tuple[float, ...]:
    """A day's rise and fall with a weaker second peak, times log-normal noise that keeps for a few seconds (AR(1))."""
    shares, noise = [], 0.0
    for index in range(math.ceil(duration / step)):
        phase = 2 * math.pi * index * step / day
        rhythm = 0.40 - 0.24 * math.cos(phase) - 0.08 * math.cos(2 * phase + 0.6)
        noise = 0.95 * noise + source.gauss(0, 0.09)
        shares.append(round(min(0.85, max(0.03, rhythm * math.exp(noise))), 3))
    return tuple(shares)


def _contention(source: random.Random, duration: float) -> tuple[Contention, ...]:
    slots = max(1, int(duration // 60))
    width = duration / slots
    periods = []
    for index in range(slots):
        length = min(source.uniform(5, 12), width / 3)
        start = width * index + source.uniform(0, width - length)
        periods.append(Contention(start_s=round(start, 3), end_s=round(start + length, 3)))
    return tuple(periods)


def _incidents(source: random.Random, duration: float, every: float) -> tuple[Incident, ...]:
    slots = max(len(KINDS), int(duration // every))
    width = duration / slots
    kinds: list[IncidentKind] = []
    while len(kinds) < slots:
        kinds += source.sample(KINDS, len(KINDS))
    return tuple(_incident(source, kinds[index], width * index, width) for index in range(slots))


def _incident(source: random.Random, kind: IncidentKind, slot: float, width: float) -> Incident:
    lengths = {"congestion": (4.0, 7.0), "burst": (1.5, 4.0), "flap": (0.6, 2.0)}
    sizes = {"congestion": (0.12, 0.35), "burst": (0.8, 1.3), "flap": (0.0, 0.0)}
    length = min(source.uniform(*lengths[kind]), width / 2)
    start = slot + source.uniform(width * 0.2, width * 0.9 - length)
    size = round(source.uniform(*sizes[kind]), 3)
    return Incident(start_s=round(start, 3), end_s=round(start + length, 3), kind=kind, size=size)
