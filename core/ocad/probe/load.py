"""A link's cross traffic after a schedule, in a process of its own.

    python -m ocad.probe.load SCHEDULE ENDPOINT START_NS HOST PORT

Times are nanoseconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ocad.errors import UsageError
from ocad.probe.schedule import Link, Schedule, read_schedule

if TYPE_CHECKING:
    import numpy as np

SO_SNDBUFFORCE = 32
"""Linux's option, which Python's socket module does not name; needs CAP_NET_ADMIN."""
SEND_BUFFER_BYTES = 4 << 20
STEP_S = 1.0
LATE_S = 0.5


def link_of(schedule: Schedule, endpoint: str) -> Link:
    """The link to `endpoint`; raises `UsageError` when the schedule has none."""
    for link in schedule.links:
        if link.endpoint == endpoint:
            return link
    raise UsageError(f"the schedule has no link `{endpoint}`", f"it has {[link.endpoint for link in schedule.links]}")


def offered_share(schedule: Schedule, link: Link) -> list[float]:
    """The load offered in each second, as a share of the link's rate, bursts included: from the seed alone."""
    source = _source(schedule, link, 0)
    traffic, noise, shares = link.traffic, 0.0, []
    for index in range(math.ceil(schedule.duration_s / STEP_S)):
        phase = 2 * math.pi * index * STEP_S / traffic.day_s
        rhythm = 1 - traffic.day_share * (math.cos(phase) + 0.3 * math.cos(2 * phase + 0.6))
        noise = 0.97 * noise + float(source.normal(0, traffic.noise * math.sqrt(1 - 0.97**2)))
        normal = min(0.6, max(0.02, traffic.base_share * rhythm * math.exp(noise)))
        shares.append(normal + _burst_share(link, index * STEP_S, (index + 1) * STEP_S))
    return shares


def batches(schedule: Schedule, link: Link) -> Iterator[tuple[float, int]]:
    """Seconds from the start, and packets to send then: a Poisson process of geometric batches, from the seed."""
    import numpy as np

    traffic = link.traffic
    source = _source(schedule, link, 1)
    batch_seconds = traffic.mean_batch_packets * traffic.packet_bytes * 8 / (link.rate_mbit * 1e6)
    for index, share in enumerate(offered_share(schedule, link)):
        start = index * STEP_S
        count = source.poisson(share * STEP_S / batch_seconds)
        times = np.sort(source.uniform(start, start + STEP_S, count))
        sizes = source.geometric(1 / traffic.mean_batch_packets, count)
        yield from zip(times.tolist(), sizes.tolist(), strict=True)


def send_traffic(schedule: Schedule, link: Link, start: int, address: tuple[str, int]) -> tuple[int, int]:
    """Sends the batches of `link` to `address`, the clock starting at `start`; returns the packets sent and left out.

    A batch that is due for longer than `LATE_S` is left out: sent later it would be a burst where the schedule has none.
    """
    sent = late = 0
    payload = bytes(link.traffic.packet_bytes - 28)  # the schedule counts IPv4 and UDP headers
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        # the default buffer would hold a lone sender back before the link's queue is full, and nothing would be dropped
        connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        for when, packets in batches(schedule, link):
            ahead = start / 1e9 + when - time.monotonic()
            if ahead < -LATE_S:
                late += packets
                continue
            time.sleep(max(0.0, ahead))
            for _ in range(packets):
                try:
                    sent += connection.sendto(payload, address) > 0
                except OSError:  # full queue or link down: cross traffic is lost there like any other
                    continue
    return sent, late


def _source(schedule: Schedule, link: Link, stream: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng([schedule.seed, schedule.links.index(link), stream])


def _burst_share(link: Link, start: float, end: float) -> float:
    """What bursts add in a step, on average over it."""
    overlaps = (
        (burst.size - link.traffic.base_share) * max(0.0, min(end, burst.end_s) - max(start, burst.start_s))
        for burst in link.incidents
        if burst.kind == "burst"
    )
    return sum(overlaps) / (end - start)


def main(arguments: list[str]) -> None:
    """What the module's docstring shows."""
    path, endpoint, start, host, port = arguments
    schedule = read_schedule(Path(path))
    print(*send_traffic(schedule, link_of(schedule, endpoint), int(start), (host, int(port))))


if __name__ == "__main__":
    main(sys.argv[1:])
