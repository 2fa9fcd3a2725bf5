"""The far end of a probe: answers what comes in, through any channel, and survives a link that goes down."""

from __future__ import annotations

import ipaddress
import select
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from ocad.errors import UsageError
from ocad.probe.channel import Arrival, Channel

POLL_SECONDS = 0.5
LIMIT = 1000.0
"""Answers a second that one peer gets where nothing else is said."""
REMEMBERED = 4096
"""So many peers are told apart; of more, the one that was silent for longest begins anew."""

Answer = Callable[[Arrival], bytes | None]
"""The reply to what came in; None: it is not to be answered."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Guard:
    """Decides who is answered: peers in `allow` (empty: all), each at most `limit` times a second.

    A forged sender must not make of a responder a weapon against a third machine. Raises `UsageError` for a limit that
    is no number above 0.
    """

    limit: float = LIMIT
    allow: Sequence[Network] = ()
    _peers: OrderedDict[Any, tuple[float, float]] = field(init=False, default_factory=OrderedDict)
    """What a peer has left of its second, and when that was counted."""

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise UsageError(f"`limit` is {self.limit}", "give a number above 0")

    def admits(self, sender: Any, now: float) -> bool:
        """Whether `sender`, an address and port or a MAC address, is answered at the monotonic second `now`."""
        host = sender[0] if isinstance(sender, tuple) else sender
        if isinstance(host, bytes):
            if self.allow or host[0] & 1:  # a group is no sender: all of it would get the answer
                return False
        elif self.allow and not self._is_allowed(host):
            return False
        most = max(1.0, self.limit)
        left, since = self._peers.pop(host, (most, now))
        left = min(most, left + (now - since) * self.limit)
        self._peers[host] = (left - 1 if left >= 1 else left), now
        if len(self._peers) > REMEMBERED:
            self._peers.popitem(last=False)
        return left >= 1

    def _is_allowed(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.allow)


def parse_networks(texts: Sequence[str]) -> list[Network]:
    """`192.0.2.0/24`, `2001:db8::/32` or single addresses; raises `UsageError` for anything else."""
    try:
        return [ipaddress.ip_network(text, strict=False) for text in texts]
    except ValueError as error:
        raise UsageError(f"cannot read a network ({error})", "write it as `192.0.2.0/24` or `2001:db8::/32`") from None


@dataclass(slots=True)
class Responder:
    """Sends `answer(arrival)` back to whoever sent it and is admitted by `guard`."""

    channel: Channel
    answer: Answer
    guard: Guard = field(default_factory=Guard)
    answered: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    """Came and was not answered: above the limit, not allowed, no request, or an answer that came back."""
    _stopped: bool = field(init=False, default=False)

    def run(self) -> None:
        """Answers until `stop` is called or KeyboardInterrupt is raised, then closes the channel."""
        with closing(self.channel):
            while not self._stopped:
                if select.select([self.channel], [], [], POLL_SECONDS)[0]:
                    self._answer_one()

    def stop(self) -> None:
        """Ends `run` within a fraction of a second."""
        self._stopped = True

    def _answer_one(self) -> None:
        try:
            arrival = self.channel.receive()
            if not arrival.sender:
                return
            admitted = self.guard.admits(arrival.sender, time.monotonic())
            reply = self.answer(arrival) if admitted else None
            if reply is None:
                self.refused += 1
                return
            self.channel.send(reply, arrival.sender)
            self.answered += 1
        except OSError:  # a link that is down, or a peer that is gone: the next one may get through
            pass
