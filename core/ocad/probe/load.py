"""Load for the testbed, each in a process of its own: cross traffic after a schedule, and a busy CPU.

    python -m ocad.probe.load traffic SCHEDULE START_NS HOST PORT
    python -m ocad.probe.load busy END_NS

Times are nanoseconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ocad.probe.schedule import Schedule, read_schedule

SO_SNDBUFFORCE = 32
"""Linux's option, which Python's socket module does not name; needs CAP_NET_ADMIN."""
SEND_BUFFER_BYTES = 4 << 20


def batches(schedule: Schedule) -> Iterator[tuple[float, int]]:
    """Seconds from the start, and packets to send then: a Poisson process of geometric batches, from the seed."""
    import numpy as np

    traffic = schedule.traffic
    source = np.random.default_rng([schedule.seed, 1])
    batch_seconds = traffic.mean_batch_packets * traffic.packet_bytes * 8 / (schedule.link.rate_mbit * 1e6)
    for index, share in enumerate(traffic.share):
        start = index * traffic.step_s
        offered = share + _burst_share(schedule, start, start + traffic.step_s)
        count = source.poisson(offered * traffic.step_s / batch_seconds)
        times = np.sort(source.uniform(start, start + traffic.step_s, count))
        sizes = source.geometric(1 / traffic.mean_batch_packets, count)
        yield from zip(times.tolist(), sizes.tolist(), strict=True)


def send_traffic(schedule: Schedule, start: int, address: tuple[str, int]) -> int:
    """Sends the batches of `schedule` to `address`, the clock starting at `start`; returns the packets sent."""
    sent = 0
    payload = bytes(schedule.traffic.packet_bytes - 28)  # the schedule counts IPv4 and UDP headers
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        # the default buffer would hold a lone sender back before the link's queue is full, and nothing would be dropped
        connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        for when, packets in batches(schedule):
            time.sleep(max(0.0, start / 1e9 + when - time.monotonic()))
            for _ in range(packets):
                try:
                    sent += connection.sendto(payload, address) > 0
                except OSError:  # full queue or link down: cross traffic is lost there like any other
                    continue
    return sent


def keep_busy(end: int) -> None:
    """Uses a CPU until `end`."""
    while time.monotonic_ns() < end:
        pass


def _burst_share(schedule: Schedule, start: float, end: float) -> float:
    """What bursts add in a step, on average over it."""
    overlaps = (
        burst.size * max(0.0, min(end, burst.end_s) - max(start, burst.start_s))
        for burst in schedule.incidents
        if burst.kind == "burst"
    )
    return sum(overlaps) / (end - start)


def main(arguments: list[str]) -> None:
    """What the module's docstring shows."""
    if arguments[0] == "traffic":
        schedule, start, host, port = arguments[1:]
        print(send_traffic(read_schedule(Path(schedule)), int(start), (host, int(port))))
    else:
        keep_busy(int(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
