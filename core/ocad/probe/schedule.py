"""What happens on the testbed and when: written down, from a seed, before anything is recorded."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from ocad.config import Settings
from ocad.errors import DataError

IncidentKind = Literal["congestion", "burst", "busy", "loss", "flap", "drift", "flapping_loss"]
KINDS: tuple[IncidentKind, ...] = get_args(IncidentKind)
LENGTHS_S: Mapping[IncidentKind, tuple[float, float]] = {
    "congestion": (7.0, 14.0),
    "burst": (3.0, 8.0),
    "busy": (7.0, 14.0),
    "loss": (7.0, 14.0),
    "flap": (1.2, 2.8),
    "drift": (60.0, 100.0),
    "flapping_loss": (40.0, 80.0),
}
"""The shortest and the longest incident of each kind."""


class Probing(Settings):
    """How each link is measured; a row of the recording covers `step_s` of all four metrics."""

    step_s: float = 1.0
    rate_hz: float = 20.0
    """UDP echoes, eCPRI delay measurements and loopback messages a second, each."""
    ccm_interval: str = "10ms"
    timeout_s: float = 0.4


class Traffic(Settings):
    """Cross traffic of normal operation: batches of packets at Poisson times.

    The load is `base_share` of the link's rate, times a day of `day_s` seconds, times slow log-normal noise.
    """

    packet_bytes: int = 600
    mean_batch_packets: float = 3.0
    base_share: float = 0.2
    day_share: float = 0.2
    """How far the day's rhythm swings about `base_share`, as a share of it."""
    day_s: float = 900.0
    noise: float = 0.15


class Incident(Settings):
    """What the labels mark, and its `size`.

    congestion, burst: the utilisation that the link's usual load then makes, by a lower rate or by further cross traffic ·
    busy: the share of a CPU that the far end and a hog beside it get together · loss: the share of packets dropped · flap: 0
    · drift: the utilisation that a slowly falling rate reaches · flapping_loss: the share dropped every other few seconds.
    """

    start_s: float
    end_s: float
    kind: IncidentKind
    size: float = 0.0


class Link(Settings):
    """One veth link: its shaped direction is a token bucket (tc-tbf) with a queue that holds `queue_ms` of traffic."""

    endpoint: str
    rate_mbit: float
    bucket_bytes: int = 4_000
    queue_ms: float = 60.0
    traffic: Traffic = Traffic()
    incidents: tuple[Incident, ...] = ()


class Split(Settings):
    """Where in time, as shares of the recording, the validation and the test part begin."""

    validation: float = 0.4
    test: float = 0.6


class Schedule(Settings):
    """A whole recording; times are seconds from its start."""

    seed: int
    duration_s: float = Field(gt=0)
    probing: Probing = Probing()
    split: Split = Split()
    links: tuple[Link, ...]

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


LINKS = (
    Link(endpoint="du1-ru1", rate_mbit=10, traffic=Traffic(base_share=0.20)),
    Link(endpoint="du1-ru2", rate_mbit=20, traffic=Traffic(base_share=0.30, day_s=1200.0)),
    Link(endpoint="du2-ru3", rate_mbit=20, traffic=Traffic(base_share=0.15, noise=0.2)),
    Link(endpoint="du2-ru4", rate_mbit=30, traffic=Traffic(base_share=0.25, mean_batch_packets=4.0)),
)
"""The links of a recording, before anything happens on them."""


def make_schedule(
    seed: int,
    duration: float,
    sizes: Mapping[IncidentKind, tuple[float, ...]],
    slots: int,
    links: tuple[Link, ...] = LINKS,
) -> Schedule:
    """A schedule of `duration` seconds with `slots` incidents on each link: the same seed gives the same one.

    Incidents of the kinds in `sizes` take turns in equal slots, so none overlap on a link and every part of the recording
    has each kind; each takes one of the sizes of its kind.
    """
    planned = tuple(
        link.model_copy(
            update={"incidents": _incidents(random.Random(f"{seed}/{link.endpoint}"), duration, sizes, slots)}
        )
        for link in links
    )
    return Schedule(seed=seed, duration_s=duration, links=planned)


def read_schedule(path: Path) -> Schedule:
    """The schedule in the file `path`; raises `DataError` when there is none or it does not fit."""
    try:
        return Schedule.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no schedule `{path}`", "write one with `--plan` and commit it") from None
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read the schedule `{path}` ({reason})", "write it again with `--plan`") from None


def _incidents(
    source: random.Random, duration: float, sizes: Mapping[IncidentKind, tuple[float, ...]], slots: int
) -> tuple[Incident, ...]:
    width = duration / slots
    kinds = tuple(sizes)
    order: list[IncidentKind] = []
    while len(order) < slots:
        order += source.sample(kinds, len(kinds))
    levels = {kind: _turns(source, sizes[kind], slots) for kind in kinds}
    return tuple(
        _incident(source, kind, levels[kind].pop(), width * index, width) for index, kind in enumerate(order[:slots])
    )


def _turns(source: random.Random, levels: tuple[float, ...], count: int) -> list[float]:
    """`levels` in turns of random order, so that each is taken about equally often."""
    turns: list[float] = []
    while len(turns) < count:
        turns += source.sample(levels, len(levels))
    return turns


def _incident(source: random.Random, kind: IncidentKind, size: float, slot: float, width: float) -> Incident:
    length = min(source.uniform(*LENGTHS_S[kind]), width / 3)
    start = slot + source.uniform(width * 0.1, width * 0.6 - length / 2)
    return Incident(start_s=round(start, 3), end_s=round(start + length, 3), kind=kind, size=size)
